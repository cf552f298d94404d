// The ready queue: what runs next, in order.
#pragma once

#include "gevent_hub.h"

/// A ready queue entry is a pointer, tagged in its low bits with what it points to.
enum {
    GEVENT_READY_RESUME = 0,    // the stack pointer of a context that stopped
    GEVENT_READY_START = 1,     // a retained Swift greenlet that has not run yet, and so has no stack
    GEVENT_READY_CALLBACK = 2,  // a retained Swift hub callback
    GEVENT_READY_START_SIZED = 3,  // like START, for a stack of the size that `stack_class` of the hub's functions says
    GEVENT_READY_TAGS = 3,
};

void gevent_ready_grow(gevent_hub *hub);

/// So that two that hand control to each other forever stop neither timers nor descriptors.
enum { GEVENT_HANDOVERS = 128 };

/// Where the ready queue begins, so that its head can go back by as many entries as there may ever be.
#define GEVENT_FIRST_PLACE (1ULL << 48)

/// How many entries may be taken before the hub has to run.
static inline void gevent_ready_grant(gevent_hub *hub, uint64_t count) {
    hub->ready_limit = hub->ready_head + count;
    hub->handovers_left = GEVENT_HANDOVERS;
}

/// Switches between stacks so far, and starts without one.
static inline uint64_t gevent_switch_count(const gevent_hub *hub) {
    return hub->ready_head - GEVENT_FIRST_PLACE + hub->moved_count + hub->root_switch_count + hub->handover_count;
}

static inline uint64_t gevent_ready_count(const gevent_hub *hub) { return hub->ready_tail - hub->ready_head; }

static inline void gevent_ready_push(gevent_hub *hub, const void *pointer, unsigned tag) {
    if (hub->ready_tail - hub->ready_head > hub->ready_mask) gevent_ready_grow(hub);
    hub->ready[hub->ready_tail++ & hub->ready_mask] = (uintptr_t)pointer | tag;
}

/// Moves the entries from `place` to the tail in front of all others, in their order. Entries that stay keep their
/// places. On the hub's stack only.
void gevent_ready_move_to_front(gevent_hub *hub, uint64_t place);

/// How many entries that were moved to the front have not been taken.
static inline uint64_t gevent_ready_front_count(const gevent_hub *hub) {
    return hub->front_end > hub->ready_head ? hub->front_end - hub->ready_head : 0;
}

/// Whether every entry before `place` has been taken, those in front of the queue aside.
static inline bool gevent_ready_has_passed(const gevent_hub *hub, uint64_t place) {
    return hub->ready_head >= place || hub->front_end >= place;
}

typedef struct gevent_ready_entry {
    void *pointer;
    unsigned tag;
} gevent_ready_entry;

/// Takes the next entry whatever it is. Only for the hub, and not when the queue is empty.
gevent_ready_entry gevent_ready_pop(gevent_hub *hub);
