#include "gevent_waits.h"

#include "gevent_once.h"
#include "gevent_switch.h"

/// Unregisters a parked context from everything that could end its wait.
static inline void unregister(gevent_hub *hub, gevent_context *context) {
    hub->parked_count--;
    gevent_node_unlink(&context->wait_link.node);
    gevent_timers_cancel(&hub->timers, &context->timer);
    if (context->wait_slot) {
        *context->wait_slot = NULL;
        context->wait_slot = NULL;
        hub->descriptor_waiters--;
    }
    if (__builtin_expect(context->wait_links != NULL, 0)) {
        gevent_links_withdraw(context->wait_links);
        context->wait_links = NULL;
    }
}

/// Marks the wait of a parked context as ended and unregisters the context everywhere.
static inline void finish_wait(gevent_context *context, uint8_t outcome) {
    context->wait_state = outcome;
    unregister(context->hub, context);
}

bool gevent_wait_end(gevent_context *context, uint8_t outcome) {
    if (context->wait_state != GEVENT_WAIT_PARKED) return false;
    finish_wait(context, outcome);
    gevent_ready_push(context->hub, context->stack_pointer, GEVENT_READY_RESUME);
    return true;
}

void gevent_wait_abandon(gevent_context *context) {
    if (context->wait_state == GEVENT_WAIT_PARKED) unregister(context->hub, context);
    context->wait_state = GEVENT_WAIT_NONE;
}

static inline gevent_context *begin_wait(gevent_hub *hub, uint8_t kind, const void *object) {
    gevent_context *self = hub->current;
    WARN_IN_INITIALIZER(self);
    self->wait_state = GEVENT_WAIT_PARKED;
    self->idle_state = GEVENT_IDLE_FRESH;
    hub->parked_count++;
    self->wait_kind = kind;
    self->wait_object = object;
    self->wait_since = hub->now;
    return self;
}

static inline uint8_t wait_outcome(gevent_context *self) {
    uint8_t outcome = self->wait_state;
    self->wait_state = GEVENT_WAIT_NONE;
    return outcome;
}

uint8_t gevent_wait(gevent_hub *hub, uint8_t kind, const void *object) {
    gevent_context *self = begin_wait(hub, kind, object);
    gevent_park(hub);
    return wait_outcome(self);
}

SWITCHES static uint8_t gevent_hand_over(gevent_hub *hub, gevent_context *self, void *load) {
    hub->handovers_left--;
    hub->handover_count++;
    gevent_switch_to(hub, &self->stack_pointer, load, false);
    return wait_outcome(self);
}

SWITCHES uint8_t gevent_wait_for_switch(
    gevent_hub *hub, uint8_t kind, const void *object, gevent_context *target, uint8_t outcome) {
    gevent_context *self = begin_wait(hub, kind, object);
    if (hub->handovers_left > 0) {
        finish_wait(target, outcome);
        return gevent_hand_over(hub, self, target->stack_pointer);
    }
    gevent_wait_end(target, outcome);
    gevent_park(hub);
    return wait_outcome(self);
}

SWITCHES uint8_t gevent_wait_for_start(
    gevent_hub *hub, uint8_t kind, const void *object, void *greenlet, unsigned tag) {
    gevent_context *self = begin_wait(hub, kind, object);
    void *load = NULL;
    if (hub->handovers_left > 0) load = gevent_prepare_start(hub, greenlet, tag);
    if (load) return gevent_hand_over(hub, self, load);
    gevent_ready_push(hub, greenlet, tag);
    gevent_park(hub);
    return wait_outcome(self);
}

gevent_timer *gevent_fire_timers(gevent_hub *hub, int64_t now) {
    gevent_timer *timer;
    while ((timer = gevent_timers_pop_due(&hub->timers, now))) {
        if (timer->kind > GEVENT_TIMER_EXPIRE) return timer;
        gevent_wait_end(timer->payload, timer->kind == GEVENT_TIMER_WAKE ? GEVENT_WAIT_WOKEN : GEVENT_WAIT_EXPIRED);
    }
    return NULL;
}
