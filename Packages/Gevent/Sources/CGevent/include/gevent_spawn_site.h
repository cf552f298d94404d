// Spawn sites: where greenlets are made. A spawn site is a bounded walk over frame pointers, linked to the site of the
// spawner. Sites are interned, so recording one costs nanoseconds and a pointer. Addresses are symbolicated only when
// they are printed.
#pragma once

#include <stddef.h>
#include <stdint.h>

enum {
    GEVENT_SPAWN_SITE_FRAMES = 8,
    /// The largest limit for the levels of a chain.
    GEVENT_SPAWN_LEVELS_MAX = 255,
    GEVENT_SPAWN_LEVELS_DEFAULT = 10,
};

/// One level of a chain of spawn sites. It lives as long as its table; equal chains are the same pointer.
typedef struct gevent_spawn_site {
    const struct gevent_spawn_site *parent;  // the spawner's site, as far as it is kept
    uint32_t frame_count;
    uint32_t level_count;                    // this level and its ancestors
    void *frames[GEVENT_SPAWN_SITE_FRAMES];  // return addresses, innermost first
} gevent_spawn_site;

/// A table entry. The same frames and the same spawner give the same chain.
typedef struct gevent_spawn_entry {
    const gevent_spawn_site *spawner;  // the key, with the chain's own frames and the limit
    const gevent_spawn_site *site;     // null if the entry is free
    uint32_t hash;
    uint32_t limit;  // 0 if nothing was cut: the spawner's whole chain is the site's parent
} gevent_spawn_entry;

typedef struct gevent_spawn_sites {
    gevent_spawn_entry *entries;  // open addressing
    uint32_t count, capacity;     // capacity is a power of two, or 0
    gevent_spawn_site **all;      // all sites, to be freed; `site_count` of them
    uint32_t site_count, site_capacity;
} gevent_spawn_sites;

/// A bound on the table. Most programs have fewer spawn sites, and fewer chains of them. Beyond this number of entries,
/// new chains are cut to one level. Beyond twice this number, nothing new is recorded; existing entries stay.
enum { GEVENT_SPAWN_SITES_MAX = 1 << 14 };

/// The limit for the levels of a chain, in the whole process. With 0, nothing is recorded.
uint32_t gevent_spawn_site_limit(void);
void gevent_spawn_site_set_limit(uint32_t limit);

/// Records the return addresses of the caller and its callers as a site, with `spawner` as the spawner's site. A frame
/// record above `high` ends the walk. Returns null if nothing could be recorded.
const gevent_spawn_site *gevent_spawn_site_capture(
    gevent_spawn_sites *sites, const gevent_spawn_site *spawner, const void *high);
void gevent_spawn_sites_destroy(gevent_spawn_sites *sites);
