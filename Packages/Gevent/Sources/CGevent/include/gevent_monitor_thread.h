// The thread of a monitor, and the sections that exclude it during a fork.
//
// The thread waits in C, and runs all Swift code in a section. A fork waits until no monitor's thread is in a section.
// Otherwise a lock of the C library, the dynamic loader or the Swift runtime that the thread holds would stay locked in
// the child.
#pragma once

#include <pthread.h>
#include <stdint.h>

/// An event that wakes a monitor's thread early. Any thread may ring it while it exists. It has no lock, so it works in
/// a forked child.
typedef struct gevent_bell gevent_bell;

/// Creates a bell. Aborts if out of memory.
gevent_bell *gevent_bell_create(void);
void gevent_bell_destroy(gevent_bell *bell);

/// Makes the thread take its next step at once.
void gevent_bell_ring(gevent_bell *bell);

/// Special results of a step, which otherwise returns a time in nanoseconds on the monotonic clock.
static const int64_t GEVENT_STEP_WHEN_RUNG = INT64_MAX;
static const int64_t GEVENT_STEP_NEVER = INT64_MIN;

/// The callbacks of a monitor's thread. Both are called on the thread, in a section.
typedef struct gevent_monitor_functions {
    int64_t (*step)(void *owner);  // does work that is due; returns the time of its next call
    void (*end)(void *owner);      // called once, after the last step
} gevent_monitor_functions;

/// Starts the thread, which calls `step` until it returns GEVENT_STEP_NEVER. The thread blocks all signals, which are
/// for the program's own threads. Returns 0 or an errno; if it fails, `end` is not called.
int gevent_monitor_thread_start(
    pthread_t *thread, gevent_bell *bell, void *owner, gevent_monitor_functions functions);
