// Small records of a hub, recycled so that the steady state allocates nothing.
#pragma once

#include "gevent_hub.h"

/// Returns memory for any small record, from the hub's free list if possible; not cleared. Aborts without memory.
void *gevent_record_take(gevent_hub *hub);

/// Returns a cleared record from the hub's free list if possible. Aborts without memory.
gevent_deferred *gevent_deferred_take(gevent_hub *hub);
/// Releases a record to the hub's free list. Frees it if `hub` is null, because the hub is destroyed.
void gevent_record_release(gevent_hub *hub, void *record);

/// The same two functions for links.
gevent_links *gevent_links_take(gevent_hub *hub);
void gevent_links_release(gevent_hub *hub, gevent_links *links);

/// Cancels a deferred action: removes its record from the timers and from its list. The caller then owns the record.
static inline void gevent_deferred_cancel(gevent_hub *hub, gevent_deferred *deferred) {
    gevent_timers_cancel(&hub->timers, &deferred->timer);
    gevent_node_unlink(&deferred->node);
}

/// Frees the recycled records when the hub is destroyed.
void gevent_records_free(gevent_hub *hub);

/// Returns the first delayed start; null if there is none.
static inline gevent_deferred *gevent_first_delayed_start(gevent_hub *hub) {
    if (gevent_list_is_empty(&hub->delayed_starts)) return NULL;
    return gevent_deferred_of_node(hub->delayed_starts.next);
}

/// Returns the start that was delayed after `record`; null if there is none.
static inline gevent_deferred *gevent_next_delayed_start(gevent_hub *hub, gevent_deferred *record) {
    if (record->node.next == &hub->delayed_starts) return NULL;
    return gevent_deferred_of_node(record->node.next);
}
