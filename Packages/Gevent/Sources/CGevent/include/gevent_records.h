// Small records of a hub, recycled so that steady state allocates nothing.
#pragma once

#include "gevent_hub.h"

/// Memory of the hub's own free list, for any of its small records; not cleared.
void *gevent_record_take(gevent_hub *hub);

/// Records from the hub's own free list: steady state allocates nothing. Aborts without memory.
gevent_deferred *gevent_deferred_take(gevent_hub *hub);
/// Frees the record if its hub is gone and null is passed for it.
void gevent_record_release(gevent_hub *hub, void *record);

/// The same for links.
gevent_links *gevent_links_take(gevent_hub *hub);
void gevent_links_release(gevent_hub *hub, gevent_links *links);

/// It does not happen any more: takes the record, which is the caller's then, out of the timers and out of its list.
static inline void gevent_deferred_cancel(gevent_hub *hub, gevent_deferred *deferred) {
    gevent_timers_cancel(&hub->timers, &deferred->timer);
    gevent_node_unlink(&deferred->node);
}

/// Frees the recycled records, at the end of the hub.
void gevent_records_free(gevent_hub *hub);

/// Null if no start is delayed.
static inline gevent_deferred *gevent_first_delayed_start(gevent_hub *hub) {
    if (gevent_list_is_empty(&hub->delayed_starts)) return NULL;
    return gevent_deferred_of_node(hub->delayed_starts.next);
}

/// The start that was delayed after `record`; null if there is none.
static inline gevent_deferred *gevent_next_delayed_start(gevent_hub *hub, gevent_deferred *record) {
    if (record->node.next == &hub->delayed_starts) return NULL;
    return gevent_deferred_of_node(record->node.next);
}
