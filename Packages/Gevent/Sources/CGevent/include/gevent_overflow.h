// Stack overflow: two ways to detect it and to print the greenlet's name.
//
// A frame that touches the guard faults, and a signal handler reports whose stack it was. Swift emits no stack probes,
// so a frame larger than the guard can step over it without a fault. Such a frame runs on a neighbouring stack and may
// have overwritten it. Each switch compares the stack pointer with the stack bounds of the context that it suspends,
// and aborts the process before another greenlet runs. A frame that steps over the guard, writes, and returns without a
// switch is not detected.
#pragma once

struct gevent_hub;

/// Makes an overflow of a greenlet's stack on the calling thread print `greenlet stack overflow in <name>` before the
/// process dies as it would without the handler. Installs the handler once per process, and an alternate signal stack
/// on this thread unless it has one.
void gevent_overflow_watch_this_thread(void);

/// Removes this thread's alternate signal stack if we installed it.
void gevent_overflow_unwatch_this_thread(void);

/// Called by a switch whose stack pointer is more than `stack_room` below the current context. Returns if that is
/// valid: on a larger stack, on the thread's or the hub's own, or on one that a library made. If the stack pointer is
/// in another stack of the hub, prints the greenlet's name and the distance, and aborts.
void gevent_check_stack_pointer(struct gevent_hub *hub, const char *stack_pointer);
