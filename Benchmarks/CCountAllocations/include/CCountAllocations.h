// Counts allocations by standing in front of the C library's allocator: linking this is enough, in a program, since
// what a program defines goes before what its libraries do. For glibc only, whose allocator has second names.
#pragma once

#include <stdint.h>

/// Allocations that the calling thread has made so far: malloc, calloc, realloc, and the aligned ones. A reallocation
/// counts as one.
int64_t count_allocations_of_thread(void);
