#include "gevent_frames.h"

#include "gevent_switch.h"

/// As the calling conventions of both architectures have it, and as the switch leaves it.
typedef struct frame_record {
    const struct frame_record *caller;
    void *return_address;
} frame_record;

// The stack is another fiber's, and parts of it are what AddressSanitizer lets nobody touch.
__attribute__((noinline, no_sanitize("thread", "address"))) size_t
gevent_frames_at(const void *stack_pointer, const void *stack_high, void **frames, size_t most) {
    const frame_record *record = (const void *)((void *const *)stack_pointer + GEVENT_FRAME_POINTER);
    uintptr_t end = (uintptr_t)stack_high - sizeof *record;
    size_t count = 0;
    while (count < most && record->return_address) {
        frames[count++] = record->return_address;
        // Callers' frames lie higher. Anything else is code without frame pointers, where the register is free.
        uintptr_t caller = (uintptr_t)record->caller;
        if (caller <= (uintptr_t)record || caller > end || caller % sizeof(void *)) break;
        record = record->caller;
    }
    return count;
}

size_t gevent_parked_frames(const gevent_context *context, void **frames, size_t most) {
    // Only a wait keeps the stack pointer here; those who merely gave way have it in the ready queue.
    if (context->wait_state != GEVENT_WAIT_PARKED) return 0;
    return gevent_frames_at(context->stack_pointer, context->stack_high, frames, most);
}
