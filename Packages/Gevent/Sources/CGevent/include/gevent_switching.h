// Switching between contexts.
//
// A context that parks switches straight to the next ready one. The hub's own context (`root`) runs when no context is
// ready, when the entries it granted are used up, or when the next entry is a callback, which runs on the hub's stack.
#pragma once

#include "gevent_ready_queue.h"

/// Parks the current context until it is made ready. The caller has registered it with whatever will wake it.
void gevent_park(gevent_hub *hub);

/// Sets the function that is notified of every switch; NULL removes it. It must only observe. Without a watcher it
/// costs nothing. A greenlet that begins on the stack of one that has ended begins without a switch.
void gevent_hub_watch_switches(gevent_hub *hub, gevent_switch_watcher watcher);

/// Returns the current context's GEVENT_PENDING_… flags. The context itself is read only if some context has pending
/// flags, since a yield does not touch it otherwise.
static inline uint8_t gevent_pending_flags(const gevent_hub *hub) {
    if (__builtin_expect(hub->slow_path_reasons == 0, 1)) return GEVENT_PENDING_NONE;
    return hub->current->pending_flags;
}

/// Moves the current context of this thread to the back of the ready queue. Returns false, without doing anything, if
/// there is no hub or the context has pending flags.
bool gevent_yield(void);

static inline void gevent_pending_raise(gevent_context *context) {
    context->hub->slow_path_reasons += context->pending_flags == GEVENT_PENDING_NONE;
    if (context->pending_flags == GEVENT_PENDING_NONE) context->pending_flags = GEVENT_PENDING_ERROR;
}

/// Forbids the context to park until its greenlet ends, like the hub's own context.
static inline void gevent_pending_refuse(gevent_context *context) {
    context->hub->slow_path_reasons += context->pending_flags == GEVENT_PENDING_NONE;
    context->pending_flags = GEVENT_PENDING_REFUSED;
}

/// Clears the flags when the context's next greenlet begins.
static inline void gevent_pending_reset(gevent_context *context) {
    context->hub->slow_path_reasons -= context->pending_flags != GEVENT_PENDING_NONE;
    context->pending_flags = GEVENT_PENDING_NONE;
}

static inline void gevent_pending_clear(gevent_context *context) {
    if (context->pending_flags != GEVENT_PENDING_ERROR) return;
    context->pending_flags = GEVENT_PENDING_NONE;
    context->hub->slow_path_reasons--;
}

/// On the hub's stack: runs ready contexts until the grant is used up, the queue is empty, or the hub has to handle the
/// next entry itself: a callback, or a greenlet for which there is no stack. Returns which of these occurred.
typedef enum gevent_run_result {
    GEVENT_RUN_DRAINED = 0,
    GEVENT_RUN_GRANT_USED = 1,
    GEVENT_RUN_CALLBACK = 2,
    GEVENT_RUN_NO_STACK = 3,
    GEVENT_RUN_HUB_CALL = 4,  // a context called gevent_call_hub
} gevent_run_result;
gevent_run_result gevent_run_ready(gevent_hub *hub);

/// Switches to the hub's stack, bypassing the ready queue, and returns when the hub calls gevent_return_from_hub_call.
/// Nothing else runs in between. For work that needs the hub's large stack or must not park. Not on that stack itself.
void gevent_call_hub(gevent_hub *hub);

/// On the hub's stack: resumes the context in gevent_call_hub. Returns when the hub runs again.
void gevent_return_from_hub_call(gevent_hub *hub);
