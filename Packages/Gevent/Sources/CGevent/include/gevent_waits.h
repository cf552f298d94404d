// Waits: every wait of a context begins and ends here, exactly once.
#pragma once

#include "gevent_switching.h"

/// Ends a wait that is in progress: unregisters the context, cancels its timer and makes it ready. Returns false if the
/// wait has already ended.
bool gevent_wait_end(gevent_context *context, uint8_t outcome);

/// Unregisters a parked context permanently: nothing makes it ready any more.
void gevent_wait_abandon(gevent_context *context);

/// Parks until the wait is ended by gevent_wait_end, and returns its outcome. The caller sets the link, the descriptor
/// slot or the timer beforehand.
uint8_t gevent_wait(gevent_hub *hub, uint8_t kind, const void *object);

/// Like gevent_wait, but switches directly to `target`, which is parked and whose wait is ended with `outcome`. If too
/// many switches have bypassed the ready queue since the hub last ran, `target` is appended to the queue instead.
uint8_t gevent_wait_for_switch(
    gevent_hub *hub, uint8_t kind, const void *object, gevent_context *target, uint8_t outcome);

/// Like gevent_wait_for_switch, for a retained Swift greenlet that has not started; `tag` is its kind of ready queue
/// entry. If there is no stack, the greenlet is queued and the hub handles the failure.
uint8_t gevent_wait_for_start(gevent_hub *hub, uint8_t kind, const void *object, void *greenlet, unsigned tag);

/// Starts the current wait's timer. Call before parking.
static inline void gevent_wait_set_timer(
    gevent_hub *hub, gevent_context *context, int64_t deadline, int64_t now, unsigned timer_kind, bool referenced) {
    context->timer.kind = (uint8_t)timer_kind;
    context->timer.payload = context;
    context->timer.referenced = referenced;
    gevent_timers_start(&hub->timers, &context->timer, deadline, now);
}

/// Fires the timers that are due. Ends sleeps and wait timeouts itself. Returns the first timer that Swift has to
/// handle, which is no longer pending, or null when no more timers are due.
gevent_timer *gevent_fire_timers(gevent_hub *hub, int64_t now);

/// Registers the current context in a descriptor's slot, which the caller has found free.
static inline void gevent_wait_set_slot(gevent_hub *hub, gevent_context **slot) {
    *slot = hub->current;
    hub->current->wait_slot = slot;
    hub->descriptor_waiters++;
}

/// Returns the context that has waited longest for nothing else to be ready; null if none does.
static inline gevent_context *gevent_first_idle_waiter(gevent_hub *hub) {
    if (gevent_list_is_empty(&hub->idle_waiters)) return NULL;
    return ((gevent_link *)hub->idle_waiters.next)->payload;
}

/// Registers the current context in a list of waiters.
static inline void gevent_wait_set_list(gevent_hub *hub, gevent_node *list) {
    gevent_link *link = &hub->current->wait_link;
    link->kind = GEVENT_LINK_WAKE;
    link->payload = hub->current;
    gevent_list_append(list, &link->node);
}

static inline gevent_node *gevent_hub_idle_waiters(gevent_hub *hub) { return &hub->idle_waiters; }
