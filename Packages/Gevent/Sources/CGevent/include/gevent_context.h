// A context: one suspended or running flow of control, and the one wait that it can be in.
//
// A greenlet's context is stored at the top of its own stack, in a page that is resident anyway, so a parked greenlet
// costs one page and a small Swift object. The contexts of the hub and of main are stored in the gevent_hub.
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "gevent_deferred.h"
#include "gevent_list.h"
#include "gevent_timers.h"

struct gevent_hub;
struct gevent_locals;

/// The state of the current or the last wait of a context.
enum {
    GEVENT_WAIT_NONE = 0,    // running, or ready because it yielded
    GEVENT_WAIT_PARKED = 1,  // waiting; only a wait in this state can be ended
    GEVENT_WAIT_WOKEN = 2,   // ended by the event that it waited for
    GEVENT_WAIT_EXPIRED = 3, // ended by its own timeout
    GEVENT_WAIT_FAILED = 4,  // ended by an error that was delivered to it
};

/// Why a context must leave the fast path when it parks.
enum {
    GEVENT_PENDING_NONE = 0,
    GEVENT_PENDING_ERROR = 1,   // a pending error is thrown at the next park
    GEVENT_PENDING_REFUSED = 2,  // it must not park: the hub's own context, or that of an ended greenlet
};

/// How long a stack has been idle, in sweeps of gevent_stacks_shed.
enum {
    GEVENT_IDLE_FRESH = 0,  // used since the latest sweep
    GEVENT_IDLE_SEEN = 1,
    GEVENT_IDLE_SHED = 2,   // its unused memory was returned to the kernel
};

typedef struct gevent_context {
    void *stack_pointer;  // saved while the context is parked
    void *owner;          // the Swift greenlet, retained until it ends; null in a free stack
    uint8_t wait_state;
    uint8_t wait_kind;  // a WaitKind of the Swift side; for reports
    uint8_t pending_flags;  // see gevent_pending_raise
    uint8_t idle_state; // GEVENT_IDLE_…; valid while the context is parked or its stack is free
    uint8_t stack_class; // the size class of its stack; 0 for the default

    // The wait: at most one at a time, so its nodes are part of the context, and a wait for one object allocates
    // nothing.
    gevent_link wait_link;              // in the list of waiters of the awaited object
    struct gevent_context **wait_slot;  // the descriptor table's slot that refers to this context, or null
    gevent_link *wait_links;            // those of an EnlistedWaiter, if the wait is for several objects; else null
    const void *wait_object;            // identity of the awaited object; for reports
    int64_t wait_since;                 // the hub's time when it parked
    gevent_timer timer;                 // a sleep's deadline or a wait's timeout

    struct gevent_locals *locals;  // the greenlet's values of greenlet locals, or null
    gevent_node timeouts;  // gevent_deferred records of pending Timeouts that this context started
    struct gevent_hub *hub;

    // The stack.
    char *stack_low;  // lowest usable address; above the guard, if the stack has one of ours
    char *stack_high; // where frames begin; for a greenlet, the context itself
    char name[48];    // for the overflow report, which must not call Swift; empty without a name
    struct gevent_context *next_free;
    uint32_t slot;  // index of its slot
    uint32_t deepest_shed;  // the greatest depth of memory that was shed from this stack, in bytes
    // For the sanitizers. Used in their builds only, but always present so that there is one layout.
    void *tsan_fiber;
    void *asan_fake_stack;
} gevent_context;

/// Returns the context that a wait link belongs to.
static inline gevent_context *gevent_context_of_wait_link(gevent_link *link) {
    return (gevent_context *)((char *)link - offsetof(gevent_context, wait_link));
}
