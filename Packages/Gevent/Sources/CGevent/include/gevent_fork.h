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

/// Before the first hub is made: sees to it that forks are noticed, whoever makes them.
void gevent_fork_watch(void);

/// `fork()`, which Swift does not import. The negated errno if it fails.
int gevent_fork(void);

/// The names of the monitors' threads, which a child does not miss.
#define GEVENT_MONITOR_THREAD "gevent-monitor"

/// How many threads this process has besides the calling one, monitors not counted; 0 if nobody tells.
int gevent_other_threads(void);
