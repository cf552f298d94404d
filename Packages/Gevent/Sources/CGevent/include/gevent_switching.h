// Switching: how one context hands over to the next.
//
// A context that parks switches straight to the next ready one. The hub's own context (`root`) runs when nothing is
// ready, when the entries it granted are used up, or when the next entry is a callback, which runs on the hub's stack.
#pragma once

#include "gevent_ready_queue.h"

/// The current context leaves the CPU and returns when somebody has made it ready. The caller has seen to that.
void gevent_park(gevent_hub *hub);

/// Has every switch told to `watcher`, which may look at everything and change nothing; null for an end of that. It
/// costs nothing while there is none. Greenlets that begin on the stack of one that has ended do so without a switch.
void gevent_hub_watch_switches(gevent_hub *hub, gevent_switch_watcher watcher);

/// What the current context has to see to before it parks: one of GEVENT_ATTENTION. The context itself is looked at
/// only if some context has something to see to, since the rest of a yield does not touch it.
static inline uint8_t gevent_pending_flags(const gevent_hub *hub) {
    if (__builtin_expect(hub->slow_path_reasons == 0, 1)) return GEVENT_PENDING_NONE;
    return hub->current->pending_flags;
}

/// The current context of this thread goes to the back of the ready queue. Returns false, without having done anything,
/// if there is no hub or the context has something to see to first.
bool gevent_yield(void);

static inline void gevent_pending_raise(gevent_context *context) {
    context->hub->slow_path_reasons += context->pending_flags == GEVENT_PENDING_NONE;
    if (context->pending_flags == GEVENT_PENDING_NONE) context->pending_flags = GEVENT_PENDING_ERROR;
}

/// From here to the end of its greenlet the context must not park, as if it were the hub's.
static inline void gevent_pending_refuse(gevent_context *context) {
    context->hub->slow_path_reasons += context->pending_flags == GEVENT_PENDING_NONE;
    context->pending_flags = GEVENT_PENDING_REFUSED;
}

/// The context is the next greenlet's.
static inline void gevent_pending_reset(gevent_context *context) {
    context->hub->slow_path_reasons -= context->pending_flags != GEVENT_PENDING_NONE;
    context->pending_flags = GEVENT_PENDING_NONE;
}

static inline void gevent_pending_clear(gevent_context *context) {
    if (context->pending_flags != GEVENT_PENDING_ERROR) return;
    context->pending_flags = GEVENT_PENDING_NONE;
    context->hub->slow_path_reasons--;
}

/// On the hub's stack: runs ready contexts until the grant is used up, the queue is empty, or the hub itself has to
/// act on the next entry: it is a callback, or a greenlet for which there is no stack. Returns which of these.
typedef enum gevent_run_result {
    GEVENT_RUN_DRAINED = 0,
    GEVENT_RUN_GRANT_USED = 1,
    GEVENT_RUN_CALLBACK = 2,
    GEVENT_RUN_NO_STACK = 3,
    GEVENT_RUN_VISIT = 4,  // a context came by gevent_visit_hub
} gevent_run_result;
gevent_run_result gevent_run_ready(gevent_hub *hub);

/// Hands control to the hub's stack, past the ready queue, and returns when the hub has called gevent_end_visit.
/// Nothing else runs in between. For work that needs the hub's large stack or must not park. Not on that stack itself.
void gevent_visit_hub(gevent_hub *hub);

/// On the hub's stack: hands control back to the visitor. Returns when the hub runs again.
void gevent_end_visit(gevent_hub *hub);
