// The thread of a monitor, and the sections that keep it apart from a fork.
//
// The thread waits in C. Everything it does besides, which is Swift, it does in a section. A fork waits until no
// monitor's thread is in one: whatever lock such a thread holds then, of the C library, the dynamic loader or the Swift
// runtime, would be held in the child for ever.
#pragma once

#include <pthread.h>
#include <stdint.h>

/// What wakes a monitor's thread before its time. Any thread may ring it while it exists. It has no lock, so it is
/// whole in a forked child.
typedef struct gevent_bell gevent_bell;

/// Aborts without memory.
gevent_bell *gevent_bell_create(void);
void gevent_bell_destroy(gevent_bell *bell);

/// Has the thread take its next step at once.
void gevent_bell_ring(gevent_bell *bell);

/// What a step may return besides a moment on the monotonic clock, in nanoseconds.
static const int64_t GEVENT_STEP_WHEN_RUNG = INT64_MAX;
static const int64_t GEVENT_STEP_NEVER = INT64_MIN;

/// Both are called on the thread, in a section.
typedef struct gevent_monitor_functions {
    int64_t (*step)(void *owner);  // does what is due, and returns when to be called next
    void (*end)(void *owner);      // after the last step, also if there was none
} gevent_monitor_functions;

/// Starts the thread, which calls `step` until that returns GEVENT_STEP_NEVER. It takes no signals: those are for the
/// program's own threads. 0 or an errno, and then `end` is not called.
int gevent_monitor_thread_start(
    pthread_t *thread, gevent_bell *bell, void *owner, gevent_monitor_functions functions);
