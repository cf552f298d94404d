// Timers for timeouts that are nearly always cancelled: a hierarchical timing wheel (Varghese and Lauck, 1987) for
// distant deadlines, and a small heap that orders near ones exactly.
//
// Start and cancel are O(1) in the wheel, for any number of pending timers, and O(log n) among the few near ones. They
// allocate nothing in the steady state. Deadlines keep
// their nanoseconds, and timers fire in the order of (deadline, start).
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "gevent_list.h"

enum {
    GEVENT_TICK_SHIFT = 16,  // a tick of the wheel's lowest level: 65.536 µs
    GEVENT_LEVEL_BITS = 6,
    GEVENT_LEVEL_SLOTS = 1 << GEVENT_LEVEL_BITS,
    GEVENT_LEVELS = 8,  // 16 + 8 * 6 bits: covers every 63-bit deadline
};

/// The action of a timer that fires. The first two are handled in C.
enum {
    GEVENT_TIMER_WAKE = 0,      // payload: the gevent_context whose wait succeeds (a sleep)
    GEVENT_TIMER_EXPIRE = 1,    // payload: the gevent_context whose wait times out
    GEVENT_TIMER_TIMEOUT = 2,   // payload: a Swift Timeout
    GEVENT_TIMER_START = 3,     // payload: a Swift greenlet to start
    GEVENT_TIMER_CALLBACK = 4,  // payload: a Swift callback
};

typedef struct gevent_timer {
    gevent_node node;  // in a slot of the wheel, if the timer is there
    int64_t deadline;  // nanoseconds on the loop's clock
    uint64_t sequence;
    void *payload;
    uint32_t heap_index;  // valid while the timer is in the heap
    uint8_t location;     // GEVENT_TIMER_IDLE, or where it is pending
    uint8_t slot_level;
    uint8_t kind;
    bool referenced;  // keeps the hub waiting
} gevent_timer;

enum { GEVENT_TIMER_IDLE = 0, GEVENT_TIMER_IN_HEAP = 1, GEVENT_TIMER_IN_WHEEL = 2 };

typedef struct gevent_timer_key {
    int64_t deadline;
    uint64_t sequence;
    gevent_timer *timer;
} gevent_timer_key;

typedef struct gevent_timers {
    gevent_timer_key *heap;  // every timer whose tick is below the horizon
    uint32_t heap_count, heap_capacity;
    // The two counts are kept apart: adjacent counts would be updated as one vector, which has to wait for the two
    // stores before it.
    uint64_t count;
    uint64_t horizon;  // in ticks; the wheel holds the timers at or beyond it
    uint64_t referenced_count;
    uint64_t next_sequence;
    uint64_t fired_count;
    uint64_t occupied[GEVENT_LEVELS];  // one bit per slot that is not empty
    gevent_node slots[GEVENT_LEVELS][GEVENT_LEVEL_SLOTS];
} gevent_timers;

void gevent_timers_init(gevent_timers *timers);
void gevent_timers_destroy(gevent_timers *timers);

/// Starts an idle timer whose kind, payload and `referenced` are set. `now` may be slightly stale.
void gevent_timers_start(gevent_timers *timers, gevent_timer *timer, int64_t deadline, int64_t now);

/// Cancels a timer; does nothing if it is idle.
void gevent_timers_cancel(gevent_timers *timers, gevent_timer *timer);

/// Removes and returns the earliest timer that is due at `now`, or returns null.
gevent_timer *gevent_timers_pop_due(gevent_timers *timers, int64_t now);

/// Returns when to call again: the earliest deadline or, if that is distant, an instant shortly before it; INT64_MAX
/// without timers.
int64_t gevent_timers_next(gevent_timers *timers, int64_t now);

/// Like gevent_timers_next, for a thread that is about to sleep. If several deadlines are within `slack` of the
/// earliest, returns an instant that serves them all, at most `slack` after the earliest. A deadline without others so
/// near is returned exactly.
int64_t gevent_timers_next_together(gevent_timers *timers, int64_t now, int64_t slack);

static inline bool gevent_timer_is_pending(const gevent_timer *timer) { return timer->location != GEVENT_TIMER_IDLE; }
