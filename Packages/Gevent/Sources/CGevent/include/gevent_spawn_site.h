// Where greenlets are made: a bounded walk over frame pointers, interned, so that a record costs nanoseconds and a
// pointer. Addresses are turned into names only when a report is printed.
#pragma once

#include <stddef.h>
#include <stdint.h>

enum { GEVENT_SPAWN_SITE_FRAMES = 8 };

/// Immortal within its table; equal sites are the same pointer.
typedef struct gevent_spawn_site {
    uint32_t hash;
    uint32_t frame_count;
    void *frames[GEVENT_SPAWN_SITE_FRAMES];  // return addresses, innermost first
} gevent_spawn_site;

typedef struct gevent_spawn_sites {
    gevent_spawn_site **slots;  // open addressing
    uint32_t count, capacity;   // capacity is a power of two, or 0
} gevent_spawn_sites;

/// A program has a bounded number of places that spawn. One that has more keeps what was recorded first.
enum { GEVENT_SPAWN_SITES_MOST = 1 << 14 };

/// Records the caller and its callers. A frame record above `high` ends the walk.
const gevent_spawn_site *gevent_spawn_site_capture(gevent_spawn_sites *sites, const void *high);
void gevent_spawn_sites_destroy(gevent_spawn_sites *sites);
