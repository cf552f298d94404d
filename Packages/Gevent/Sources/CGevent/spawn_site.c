#include <stdlib.h>
#include <string.h>

#include "gevent_spawn_site.h"

typedef struct frame_record {
    struct frame_record *caller;
    void *return_address;
} frame_record;

static void insert(gevent_spawn_sites *sites, gevent_spawn_site *site) {
    uint32_t mask = sites->capacity - 1, index = site->hash & mask;
    while (sites->slots[index]) index = (index + 1) & mask;
    sites->slots[index] = site;
}

static int grow(gevent_spawn_sites *sites) {
    gevent_spawn_sites larger = {.count = sites->count, .capacity = sites->capacity ? sites->capacity * 2 : 64};
    larger.slots = calloc(larger.capacity, sizeof *larger.slots);
    if (!larger.slots) return 0;
    for (uint32_t i = 0; i < sites->capacity; i++)
        if (sites->slots[i]) insert(&larger, sites->slots[i]);
    free(sites->slots);
    *sites = larger;
    return 1;
}

__attribute__((noinline)) const gevent_spawn_site *gevent_spawn_site_capture(
    gevent_spawn_sites *sites, const void *high) {
    void *frames[GEVENT_SPAWN_SITE_FRAMES];
    uint32_t count = 0;
    uint64_t hash = 0xcbf29ce484222325u;
    frame_record *record = __builtin_frame_address(0);
    // The first record is this function's own: its return address lies in the caller, which is where a site begins.
    while (count < GEVENT_SPAWN_SITE_FRAMES) {
        uintptr_t address = (uintptr_t)record;
        if (address + sizeof *record > (uintptr_t)high || address % sizeof(void *)) break;
        if (!record->return_address) break;
        frames[count++] = record->return_address;
        hash = (hash ^ (uintptr_t)record->return_address) * 0x9e3779b97f4a7c15u;
        hash ^= hash >> 29;
        // Callers' frames lie higher. Anything else is code without frame pointers, where the register is free.
        if (record->caller <= record) break;
        record = record->caller;
    }
    if (count == 0) return NULL;
    uint32_t folded = (uint32_t)(hash ^ hash >> 32);
    if (sites->capacity) {
        uint32_t mask = sites->capacity - 1;
        for (uint32_t index = folded & mask; sites->slots[index]; index = (index + 1) & mask) {
            gevent_spawn_site *site = sites->slots[index];
            if (site->hash == folded && site->frame_count == count &&
                memcmp(site->frames, frames, count * sizeof *frames) == 0)
                return site;
        }
    }
    if (sites->count >= GEVENT_SPAWN_SITES_MOST) return NULL;
    if (sites->count * 2 >= sites->capacity && !grow(sites)) return NULL;
    gevent_spawn_site *site = calloc(1, sizeof *site);
    if (!site) return NULL;
    site->hash = folded;
    site->frame_count = count;
    memcpy(site->frames, frames, count * sizeof *frames);
    insert(sites, site);
    sites->count++;
    return site;
}

void gevent_spawn_sites_destroy(gevent_spawn_sites *sites) {
    for (uint32_t i = 0; i < sites->capacity; i++) free(sites->slots[i]);
    free(sites->slots);
    *sites = (gevent_spawn_sites){0};
}
