// Locks that are held during a fork, and the notification of the hub in a forked child.
#pragma once

#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>

/// The lock of a hub's mailbox. A forking thread holds its own hub's lock, so the lock is usable in the child. A Swift
/// Mutex would not be: it identifies its owner by a thread ID cached before the fork, which is wrong in the child.
typedef struct gevent_mailbox_lock gevent_mailbox_lock;

/// Creates a lock. Aborts if out of memory.
gevent_mailbox_lock *gevent_mailbox_lock_create(void);
void gevent_mailbox_lock_destroy(gevent_mailbox_lock *lock);

/// Locks. Returns false without locking if this is a child forked by another thread, where the hub's thread does not
/// exist.
bool gevent_mailbox_lock_acquire(gevent_mailbox_lock *lock);
void gevent_mailbox_lock_release(gevent_mailbox_lock *lock);

/// The order in which files register their fork handlers, as priorities of constructors. `pthread_atfork` runs the
/// handlers in this order after a fork, and in reverse order before it. So the monitors' sections end before a lock is
/// taken that a monitor's function may need, such as a hub's mailbox lock.
enum {
    GEVENT_FORK_MAILBOX = 1001,
    GEVENT_FORK_SIGNALS = 1002,
    GEVENT_FORK_MONITORS = 1003,
};

/// The name of every monitor's thread. These threads are not counted, because a child starts new ones.
#define GEVENT_MONITOR_THREAD "gevent-monitor"

/// Returns the number of threads besides the calling one, not counting monitors; 0 if it is unknown.
int gevent_other_threads(void);
