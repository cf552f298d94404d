// Stack overflow: a message that names the greenlet, in two ways.
//
// A frame that touches the guard faults, and a signal handler says whose stack it was. Swift emits no stack probes, so
// a frame larger than the guard can step over it without a fault. Such a frame runs on the stack of a neighbour, and
// may have overwritten it. Each switch compares the stack pointer with the bounds of the stack that it leaves, and ends
// the process before another greenlet runs. A frame that steps over the guard, writes, and returns without a switch is
// not found.
#pragma once

struct gevent_hub;

/// Makes an overflow of a greenlet's stack on the calling thread print `greenlet stack overflow in <name>` before the
/// process dies the way it would have died anyway. Installs the handler once per process, and an alternate signal
/// stack on this thread unless it has one.
void gevent_overflow_watch_this_thread(void);

/// Takes this thread's alternate signal stack away again, if it was ours.
void gevent_overflow_unwatch_this_thread(void);

/// Called by a switch whose stack pointer lies deeper than `stack_room` below the current context. Returns if that is
/// in order: in a larger stack, on the thread's or the hub's own, or on one that a library made. Prints whose frame
/// went how far and aborts if it lies in another stack of the hub.
void gevent_check_stack_pointer(struct gevent_hub *hub, const char *stack_pointer);
