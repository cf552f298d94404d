// Safe reads of memory that another thread may unmap at any time.
#pragma once

#include <stddef.h>
#include <stdint.h>

/// Copies memory of this process. Returns the number of bytes copied, 0 if nothing is mapped at `from`.
size_t gevent_copy_memory(void *to, uintptr_t from, size_t size);
