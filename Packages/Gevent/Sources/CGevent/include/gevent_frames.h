// The frames on a stack.
#pragma once

#include "gevent_context.h"

/// Collects the return addresses on the stack of a parked context, innermost first, as far as frame pointers lead and
/// at most `max_count`. Returns how many; 0 if the context is not parked.
size_t gevent_parked_frames(const gevent_context *context, void **frames, size_t max_count);

/// The same for a context that was suspended at `stack_pointer`, on a stack that ends at `stack_high`.
size_t gevent_frames_at(const void *stack_pointer, const void *stack_high, void **frames, size_t max_count);

/// The same from a frame pointer, of the running or of a suspended context.
size_t gevent_frames_from(const void *frame_pointer, const void *stack_high, void **frames, size_t max_count);
