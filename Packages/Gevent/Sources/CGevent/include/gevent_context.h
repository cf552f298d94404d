// A context: one suspended or running flow of control, and the one wait it can be in.
//
// A greenlet's context lives at the top of its own stack, in a page that is resident anyway, so a parked greenlet
// costs one page and a small Swift object. The hub's and the main greenlet's contexts live in the gevent_hub.
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "gevent_deferred.h"
#include "gevent_list.h"
#include "gevent_timers.h"

struct gevent_hub;
struct gevent_locals;

/// How the current or the last wait of a context stands.
enum {
    GEVENT_WAIT_NONE = 0,    // running, or ready because it yielded
    GEVENT_WAIT_PARKED = 1,  // waiting; only in this state can a wait be ended
    GEVENT_WAIT_WOKEN = 2,   // ended by what it waited for
    GEVENT_WAIT_EXPIRED = 3, // ended by its own timeout
    GEVENT_WAIT_FAILED = 4,  // ended by an error that was thrown into it
};

/// Why a context must look up from its fast path before it parks.
enum {
    GEVENT_PENDING_NONE = 0,
    GEVENT_PENDING_ERROR = 1,   // an error waits to be thrown at the next park
    GEVENT_PENDING_REFUSED = 2,  // the hub's own context, or what is left of a greenlet: neither may park
};

/// How long a stack has been idle, in sweeps of gevent_stacks_shed.
enum {
    GEVENT_IDLE_FRESH = 0,  // not since the latest sweep
    GEVENT_IDLE_SEEN = 1,
    GEVENT_IDLE_SHED = 2,   // its unused memory went back to the kernel
};

typedef struct gevent_context {
    void *stack_pointer;  // where it stopped, while it is parked
    void *owner;          // the Swift greenlet, retained while it is started and not over; null in a free stack
    uint8_t wait_state;
    uint8_t wait_kind;  // what it waits for, as the Swift side names it; for reports
    uint8_t pending_flags;  // see gevent_pending_raise
    uint8_t idle_state; // GEVENT_IDLE_…; counts while the context is parked or its stack free
    uint8_t stack_class; // of which size its stack is; 0 for the default

    // The wait: at most one at a time, so its nodes are part of the context and a wait allocates nothing.
    gevent_link wait_link;              // in the list of what it waits for
    struct gevent_context **wait_slot;  // the descriptor table's place that names this context, or null
    gevent_link *wait_links;            // an EnlistedWaiter's, if the wait is for several objects; else null
    const void *wait_object;            // identity of what it waits for; for reports
    int64_t wait_since;                 // the hub's time when it parked
    gevent_timer timer;                 // a sleep's deadline or a wait's timeout

    struct gevent_locals *locals;  // the greenlet's values of greenlet locals, or null
    gevent_node timeouts;  // gevent_deferred records of pending Timeouts that this context started
    struct gevent_hub *hub;

    // The stack.
    char *stack_low;  // lowest usable address, above the guard if it is ours
    char *stack_high; // where frames begin; for a greenlet, the context itself
    char name[48];    // for the overflow report, which may not call Swift; empty if the greenlet has no name
    struct gevent_context *next_free;
    uint32_t slot;  // the number of its slot
    uint32_t deepest_shed;  // how deep memory reached that was shed from this stack, in bytes
    // For the sanitizers, in their builds only; always here so that the layout is one.
    void *tsan_fiber;
    void *asan_fake_stack;
} gevent_context;

/// Whose wait a link is.
static inline gevent_context *gevent_context_of_wait_link(gevent_link *link) {
    return (gevent_context *)((char *)link - offsetof(gevent_context, wait_link));
}
