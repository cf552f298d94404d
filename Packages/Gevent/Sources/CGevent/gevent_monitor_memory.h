// Reading memory that another thread may unmap at any moment.
#pragma once

#include <stddef.h>
#include <stdint.h>

/// Copies memory of this process. Returns how many bytes it got, 0 if nothing is mapped there.
size_t gevent_copy_memory(void *to, uintptr_t from, size_t size);
