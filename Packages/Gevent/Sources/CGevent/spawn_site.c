#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "gevent_spawn_site.h"

typedef struct frame_record {
    struct frame_record *caller;
    void *return_address;
} frame_record;

typedef struct key {
    void *const *frames;  // GEVENT_SPAWN_SITE_FRAMES of them, the unused ones null
    uint32_t count, hash, limit;
    const gevent_spawn_site *spawner;
} key;

static uint32_t level_limit = GEVENT_SPAWN_LEVELS_DEFAULT;

uint32_t gevent_spawn_site_limit(void) { return __atomic_load_n(&level_limit, __ATOMIC_RELAXED); }

void gevent_spawn_site_set_limit(uint32_t limit) { __atomic_store_n(&level_limit, limit, __ATOMIC_RELAXED); }

// MARK: the table

// The hash is a sum of products. Unlike a chain of multiplications it does not lengthen the walk, which is itself a
// chain of loads. There is one odd factor for each frame.
static const uint64_t factors[GEVENT_SPAWN_SITE_FRAMES] = {
    0x9e3779b97f4a7c15u, 0xbf58476d1ce4e5b9u, 0x94d049bb133111ebu, 0xd6e8feb86659fd93u,
    0xa0761d6478bd642fu, 0xe7037ed1a0b428dbu, 0x8ebc6af09c88c6e3u, 0x589965cc75374cc3u,
};

static inline uint32_t fold(uint64_t sum, const gevent_spawn_site *spawner, uint32_t limit) {
    sum += (uintptr_t)spawner * 0xff51afd7ed558ccdu + limit;
    sum ^= sum >> 32;
    return (uint32_t)(sum * 0x9e3779b97f4a7c15u >> 32);
}

static uint32_t hash_of(void *const *frames, uint32_t count, const gevent_spawn_site *spawner, uint32_t limit) {
    uint64_t sum = 0;
    for (uint32_t i = 0; i < count; i++) sum += (uintptr_t)frames[i] * factors[i];
    return fold(sum, spawner, limit);
}

static inline const gevent_spawn_site *find(const gevent_spawn_sites *sites, const key *wanted) {
    if (!sites->capacity) return NULL;
    uint32_t mask = sites->capacity - 1;
    for (uint32_t index = wanted->hash & mask; sites->entries[index].site; index = (index + 1) & mask) {
        const gevent_spawn_entry *entry = &sites->entries[index];
        if (entry->hash != wanted->hash || entry->spawner != wanted->spawner || entry->limit != wanted->limit) continue;
        // Compares all slots, used or null, so that the compiler knows their number and unrolls the loop. It does not
        // unroll a memcmp.
        uintptr_t difference = 0;
        for (uint32_t i = 0; i < GEVENT_SPAWN_SITE_FRAMES; i++)
            difference |= (uintptr_t)entry->site->frames[i] ^ (uintptr_t)wanted->frames[i];
        if (difference == 0) return entry->site;
    }
    return NULL;
}

static void insert(gevent_spawn_sites *sites, gevent_spawn_entry entry) {
    uint32_t mask = sites->capacity - 1, index = entry.hash & mask;
    while (sites->entries[index].site) index = (index + 1) & mask;
    sites->entries[index] = entry;
}

static bool grow(gevent_spawn_sites *sites) {
    uint32_t capacity = sites->capacity;
    gevent_spawn_entry *entries = sites->entries;
    gevent_spawn_entry *larger = calloc(capacity ? capacity * 2 : 64, sizeof *larger);
    if (!larger) return false;
    sites->entries = larger;
    sites->capacity = capacity ? capacity * 2 : 64;
    for (uint32_t i = 0; i < capacity; i++)
        if (entries[i].site) insert(sites, entries[i]);
    free(entries);
    return true;
}

static bool add(gevent_spawn_sites *sites, const key *wanted, const gevent_spawn_site *site) {
    if (sites->count * 2 >= sites->capacity && !grow(sites)) return false;
    insert(sites, (gevent_spawn_entry){wanted->spawner, site, wanted->hash, wanted->limit});
    sites->count++;
    return true;
}

/// Returns the chain of these frames on top of `parent`, which is kept whole.
static const gevent_spawn_site *intern(
    gevent_spawn_sites *sites, void *const *frames, uint32_t count, const gevent_spawn_site *parent) {
    key wanted = {frames, count, hash_of(frames, count, parent, 0), 0, parent};
    const gevent_spawn_site *known = find(sites, &wanted);
    if (known) return known;
    if (sites->site_count == sites->site_capacity) {
        uint32_t capacity = sites->site_capacity ? sites->site_capacity * 2 : 32;
        gevent_spawn_site **all = realloc(sites->all, capacity * sizeof *all);
        if (!all) return NULL;
        sites->all = all;
        sites->site_capacity = capacity;
    }
    gevent_spawn_site *site = calloc(1, sizeof *site);
    if (!site) return NULL;
    site->parent = parent;
    site->level_count = parent ? parent->level_count + 1 : 1;
    site->frame_count = count;
    memcpy(site->frames, frames, count * sizeof *frames);
    if (!add(sites, &wanted, site)) {
        free(site);
        return NULL;
    }
    sites->all[sites->site_count++] = site;
    return site;
}

/// Returns the innermost `levels` of a chain.
static const gevent_spawn_site *trimmed(gevent_spawn_sites *sites, const gevent_spawn_site *site, uint32_t levels) {
    if (!site || site->level_count <= levels) return site;
    const gevent_spawn_site *kept[GEVENT_SPAWN_LEVELS_MAX];
    for (uint32_t i = 0; i < levels; i++, site = site->parent) kept[i] = site;
    const gevent_spawn_site *made = NULL;
    for (uint32_t i = levels; i-- > 0;) {
        made = intern(sites, kept[i]->frames, kept[i]->frame_count, made);
        if (!made) return NULL;
    }
    return made;
}

/// Adds a site that has not been recorded with this spawner before.
__attribute__((noinline)) static const gevent_spawn_site *make(gevent_spawn_sites *sites, key wanted, uint32_t limit) {
    if (sites->count >= 2 * GEVENT_SPAWN_SITES_MAX) return NULL;
    if (sites->count >= GEVENT_SPAWN_SITES_MAX) return intern(sites, wanted.frames, wanted.count, NULL);
    if (wanted.limit == 0) return intern(sites, wanted.frames, wanted.count, wanted.spawner);
    // The chain reaches the limit. If each greenlet spawns the next one, the chain soon stops changing: the level that
    // the limit cuts off equals the level that the new site adds. From then on the lookup succeeds at once.
    const gevent_spawn_site *parent = trimmed(sites, wanted.spawner, limit - 1);
    const gevent_spawn_site *site = intern(sites, wanted.frames, wanted.count, parent);
    if (site) add(sites, &wanted, site);
    return site;
}

__attribute__((noinline)) const gevent_spawn_site *gevent_spawn_site_capture(
    gevent_spawn_sites *sites, const gevent_spawn_site *spawner, const void *high) {
    uint32_t limit = gevent_spawn_site_limit();
    if (limit == 0) return NULL;
    void *frames[GEVENT_SPAWN_SITE_FRAMES] = {0};
    uint32_t count = 0;
    uint64_t sum = 0;
    frame_record *record = __builtin_frame_address(0);
    // The first record is this function's own: its return address lies in the caller, which is where a site begins.
    while (count < GEVENT_SPAWN_SITE_FRAMES) {
        uintptr_t address = (uintptr_t)record;
        if (address + sizeof *record > (uintptr_t)high || address % sizeof(void *)) break;
        if (!record->return_address) break;
        sum += (uintptr_t)record->return_address * factors[count];
        frames[count++] = record->return_address;
        // Frames of callers lie higher. A lower address means code without frame pointers, which uses the register
        // freely.
        if (record->caller <= record) break;
        record = record->caller;
    }
    if (count == 0) return NULL;
    uint32_t cut = spawner && spawner->level_count >= limit ? limit : 0;
    key wanted = {frames, count, fold(sum, spawner, cut), cut, spawner};
    const gevent_spawn_site *site = find(sites, &wanted);
    return __builtin_expect(site != NULL, 1) ? site : make(sites, wanted, limit);
}

void gevent_spawn_sites_destroy(gevent_spawn_sites *sites) {
    for (uint32_t i = 0; i < sites->site_count; i++) free(sites->all[i]);
    free(sites->all);
    free(sites->entries);
    *sites = (gevent_spawn_sites){0};
}
