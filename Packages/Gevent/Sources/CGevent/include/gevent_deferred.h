// A deferred action that Swift performs unless it is cancelled: a Timeout, or a delayed start.
#pragma once

#include <stddef.h>

#include "gevent_list.h"
#include "gevent_timers.h"

struct gevent_context;

typedef struct gevent_deferred {
    gevent_timer timer;  // first, so that a fired timer's address is that of its record
    gevent_node node;    // in the list of the context that started it, or of the hub
    struct gevent_context *target;
} gevent_deferred;

static inline gevent_deferred *gevent_deferred_of_node(gevent_node *node) {
    return (gevent_deferred *)((char *)node - offsetof(gevent_deferred, node));
}
