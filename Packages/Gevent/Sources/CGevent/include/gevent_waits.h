// Waits: every wait of a context begins and ends here, each exactly once.
#pragma once

#include "gevent_switching.h"

/// Ends a wait if it is still going on: takes it out of whatever it waits in, stops its timer, makes the context
/// ready. Every wait goes through here exactly once; whoever comes second gets false.
bool gevent_wait_end(gevent_context *context, uint8_t outcome);

/// Takes a parked context out of whatever it waits in, for good: nothing makes it ready any more.
void gevent_wait_abandon(gevent_context *context);

/// Parks until somebody calls gevent_wait_end, and returns its outcome. Hooks (link, descriptor slot, timer) are
/// set by the caller beforehand.
uint8_t gevent_wait(gevent_hub *hub, uint8_t kind, const void *object);

/// The same, but control goes straight to `target`, which is parked and whose wait this ends with `outcome`. When it
/// has been handed over too often without the hub, `target` takes its turn in the ready queue instead.
uint8_t gevent_wait_for_switch(
    gevent_hub *hub, uint8_t kind, const void *object, gevent_context *target, uint8_t outcome);

/// The same for a retained Swift greenlet that has not run, with its tag for the ready queue. If there is no stack for
/// it, the hub finds that out.
uint8_t gevent_wait_for_start(gevent_hub *hub, uint8_t kind, const void *object, void *greenlet, unsigned tag);

/// Arms the current wait's timer before it parks.
static inline void gevent_wait_set_timer(
    gevent_hub *hub, gevent_context *context, int64_t deadline, int64_t now, unsigned timer_kind, bool referenced) {
    context->timer.kind = (uint8_t)timer_kind;
    context->timer.payload = context;
    context->timer.referenced = referenced;
    gevent_timers_start(&hub->timers, &context->timer, deadline, now);
}

/// Fires what is due. Sleeps and wait timeouts are ended here; the first timer that Swift has to act on is returned,
/// no longer pending; null when nothing more is due.
gevent_timer *gevent_fire_timers(gevent_hub *hub, int64_t now);

/// Hooks the current context into a descriptor's place, which the caller has found free.
static inline void gevent_wait_set_slot(gevent_hub *hub, gevent_context **slot) {
    *slot = hub->current;
    hub->current->wait_slot = slot;
    hub->descriptor_waiters++;
}

/// The context that has waited longest for nothing else to be runnable; null if none does.
static inline gevent_context *gevent_first_idle_waiter(gevent_hub *hub) {
    if (gevent_list_is_empty(&hub->idle_waiters)) return NULL;
    return ((gevent_link *)hub->idle_waiters.next)->payload;
}

/// Hooks the current context into a list of those that wait for the same thing.
static inline void gevent_wait_set_list(gevent_hub *hub, gevent_node *list) {
    gevent_link *link = &hub->current->wait_link;
    link->kind = GEVENT_LINK_WAKE;
    link->payload = hub->current;
    gevent_list_append(list, &link->node);
}

static inline gevent_node *gevent_hub_idle_waiters(gevent_hub *hub) { return &hub->idle_waiters; }
