// What a fork must not find half done, and how a hub learns of one.
#pragma once

#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>

/// The lock of a hub's mailbox. Whoever forks holds that of their own thread's hub, so a child's is usable; a Swift
/// Mutex would not be even then, since it names its owner by a thread number that it remembers from before the fork.
typedef struct gevent_mailbox_lock gevent_mailbox_lock;

/// Aborts without memory.
gevent_mailbox_lock *gevent_mailbox_lock_create(void);
void gevent_mailbox_lock_destroy(gevent_mailbox_lock *lock);

/// False, and not locked, if the hub's thread is not in this process: it was forked off by another thread.
bool gevent_mailbox_lock_acquire(gevent_mailbox_lock *lock);
void gevent_mailbox_lock_release(gevent_mailbox_lock *lock);

/// The order in which files register what they do around a fork, as priorities of constructors. Handlers of
/// `pthread_atfork` run in this order after the fork, and in the opposite order before it. So the monitors' sections
/// end before anything is locked that a monitor's function may need, such as the mailbox of a hub.
enum {
    GEVENT_FORK_MAILBOX = 1001,
    GEVENT_FORK_SIGNALS = 1002,
    GEVENT_FORK_MONITORS = 1003,
};

/// `fork()`, which Swift does not import. The negated errno if it fails.
int gevent_fork(void);

/// The names of the monitors' threads, which a child does not miss.
#define GEVENT_MONITOR_THREAD "gevent-monitor"

/// How many threads this process has besides the calling one, monitors not counted; 0 if nobody tells.
int gevent_other_threads(void);
