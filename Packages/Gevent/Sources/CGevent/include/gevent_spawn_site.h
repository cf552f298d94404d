// Where greenlets are made: a bounded walk over frame pointers, chained to the record of the greenlet that made this
// one, interned, so that a record costs nanoseconds and a pointer. Addresses are turned into names only when they are
// printed.
#pragma once

#include <stddef.h>
#include <stdint.h>

enum {
    GEVENT_SPAWN_SITE_FRAMES = 8,
    /// A chain may be limited to at most this many levels.
    GEVENT_SPAWN_LEVELS_MOST = 255,
    GEVENT_SPAWN_LEVELS_DEFAULT = 10,
};

/// Immortal within its table; equal chains are the same pointer.
typedef struct gevent_spawn_site {
    const struct gevent_spawn_site *parent;  // where the spawner was made, as far as that is kept
    uint32_t frame_count;
    uint32_t level_count;                    // this one and its ancestors
    void *frames[GEVENT_SPAWN_SITE_FRAMES];  // return addresses, innermost first
} gevent_spawn_site;

/// What is looked up: the same place reached from the same spawner gives the same chain.
typedef struct gevent_spawn_entry {
    const gevent_spawn_site *spawner;  // the key, with the chain's own frames and the limit
    const gevent_spawn_site *site;     // null if the entry is free
    uint32_t hash;
    uint32_t limit;  // 0 if the limit did not matter: the spawner's whole chain is the site's parent
} gevent_spawn_entry;

typedef struct gevent_spawn_sites {
    gevent_spawn_entry *entries;  // open addressing
    uint32_t count, capacity;     // capacity is a power of two, or 0
    gevent_spawn_site **all;      // what to free; `site_count` of them
    uint32_t site_count, site_capacity;
} gevent_spawn_sites;

/// A program has a bounded number of places that spawn, and of chains of them. One that has more keeps what came first:
/// beyond this, chains are cut to one level, and beyond twice this nothing more is recorded.
enum { GEVENT_SPAWN_SITES_MOST = 1 << 14 };

/// How many levels a chain may have, in the whole process. Nothing is recorded with 0.
uint32_t gevent_spawn_site_limit(void);
void gevent_spawn_site_set_limit(uint32_t limit);

/// Records the caller and its callers, and `spawner` as where they were spawned in turn. A frame record above `high`
/// ends the walk. Null if nothing could be recorded.
const gevent_spawn_site *gevent_spawn_site_capture(
    gevent_spawn_sites *sites, const gevent_spawn_site *spawner, const void *high);
void gevent_spawn_sites_destroy(gevent_spawn_sites *sites);
