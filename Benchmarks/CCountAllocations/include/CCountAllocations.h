// Counts allocations by interposing the C library's allocator. Linking this into a program is enough, because a
// program's definitions take precedence over its libraries'. Works with glibc only, whose allocator functions have
// second names.
#pragma once

#include <stdint.h>

/// Returns the number of allocations that the calling thread has made so far: malloc, calloc, realloc, and the aligned
/// ones. A reallocation counts as one.
int64_t count_allocations_of_thread(void);
