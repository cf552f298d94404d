// Stack overflow: a named message instead of a riddle.
#pragma once

/// Makes an overflow of a greenlet's stack on the calling thread print `greenlet stack overflow in <name>` before the
/// process dies the way it would have died anyway. Installs the handler once per process, and an alternate signal
/// stack on this thread unless it has one.
void gevent_overflow_watch_this_thread(void);

/// Takes this thread's alternate signal stack away again, if it was ours.
void gevent_overflow_unwatch_this_thread(void);
