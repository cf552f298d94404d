// The ready queue: the contexts, greenlets and callbacks to run next, in order.
#pragma once

#include "gevent_hub.h"

/// The kinds of ready queue entries. An entry is a pointer with its kind in the low bits.
enum {
    GEVENT_READY_RESUME = 0,    // the stack pointer of a suspended context
    GEVENT_READY_START = 1,     // a retained Swift greenlet that has not started, and so has no stack
    GEVENT_READY_CALLBACK = 2,  // a retained Swift hub callback
    GEVENT_READY_START_SIZED = 3,  // like START, with a stack of the size that the hub's `stack_class` returns
    GEVENT_READY_TAGS = 3,
};

void gevent_ready_grow(gevent_hub *hub);

/// The bound of handovers per grant, so that two contexts that hand over to each other starve no timers or descriptors.
enum { GEVENT_HANDOVERS = 128 };

/// The initial index of the ready queue, large enough that its head can be moved back by any number of entries.
#define GEVENT_FIRST_INDEX (1ULL << 48)

/// Sets how many entries may be taken before the hub has to run.
static inline void gevent_ready_grant(gevent_hub *hub, uint64_t count) {
    hub->ready_limit = hub->ready_head + count;
    hub->handovers_left = GEVENT_HANDOVERS;
}

/// Returns the number of switches so far: entries taken from the queue, of whatever kind, and switches past it.
static inline uint64_t gevent_switch_count(const gevent_hub *hub) {
    return hub->ready_head - GEVENT_FIRST_INDEX + hub->moved_count + hub->root_switch_count + hub->handover_count;
}

static inline uint64_t gevent_ready_count(const gevent_hub *hub) { return hub->ready_tail - hub->ready_head; }

static inline void gevent_ready_push(gevent_hub *hub, const void *pointer, unsigned tag) {
    if (hub->ready_tail - hub->ready_head > hub->ready_mask) gevent_ready_grow(hub);
    hub->ready[hub->ready_tail++ & hub->ready_mask] = (uintptr_t)pointer | tag;
}

/// Moves the entries from `start` to the tail in front of all others, in their order. The other entries keep their
/// indices. On the hub's stack only.
void gevent_ready_move_to_front(gevent_hub *hub, uint64_t start);

/// Returns how many of the entries that were moved to the front have not been taken.
static inline uint64_t gevent_ready_front_count(const gevent_hub *hub) {
    return hub->front_end > hub->ready_head ? hub->front_end - hub->ready_head : 0;
}

/// Returns whether every entry before `position` has been taken, apart from those that were moved to the front.
static inline bool gevent_ready_has_passed(const gevent_hub *hub, uint64_t position) {
    return hub->ready_head >= position || hub->front_end >= position;
}

typedef struct gevent_ready_entry {
    void *pointer;
    unsigned tag;
} gevent_ready_entry;

/// Takes the next entry, of any kind. For the hub only, and not when the queue is empty.
gevent_ready_entry gevent_ready_pop(gevent_hub *hub);
