// The frames of contexts that do not run.
#pragma once

#include "gevent_context.h"

/// The return addresses on the stack of a context that is parked, innermost first, as far as frame pointers lead and at
/// most `most`. Returns how many; none of one that is not parked.
size_t gevent_parked_frames(const gevent_context *context, void **frames, size_t most);

/// The same of a context that stopped at `stack_pointer`, on a stack that ends at `stack_high`.
size_t gevent_frames_at(const void *stack_pointer, const void *stack_high, void **frames, size_t most);
