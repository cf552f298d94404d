#include "gevent_frames.h"

#include "gevent_switch.h"

/// A frame record as in the calling conventions of both architectures, and as the switch saves it.
typedef struct frame_record {
    const struct frame_record *caller;
    void *return_address;
} frame_record;

// The stack may belong to another fiber, and AddressSanitizer has poisoned parts of it.
__attribute__((noinline, no_sanitize("thread", "address"))) size_t
gevent_frames_from(const void *frame_pointer, const void *stack_high, void **frames, size_t max_count) {
    const frame_record *record = frame_pointer;
    uintptr_t end = (uintptr_t)stack_high - sizeof *record;
    size_t count = 0;
    while (count < max_count && record->return_address) {
        frames[count++] = record->return_address;
        // Callers' frames are at higher addresses. Any other value comes from code without frame pointers, where the
        // register is used for other data.
        uintptr_t caller = (uintptr_t)record->caller;
        if (caller <= (uintptr_t)record || caller > end || caller % sizeof(void *)) break;
        record = record->caller;
    }
    return count;
}

size_t gevent_frames_at(const void *stack_pointer, const void *stack_high, void **frames, size_t max_count) {
    return gevent_frames_from((void *const *)stack_pointer + GEVENT_FRAME_POINTER, stack_high, frames, max_count);
}

size_t gevent_parked_frames(const gevent_context *context, void **frames, size_t max_count) {
    // Only a wait saves the stack pointer here; that of a context that yielded is in the ready queue.
    if (context->wait_state != GEVENT_WAIT_PARKED) return 0;
    return gevent_frames_at(context->stack_pointer, context->stack_high, frames, max_count);
}
