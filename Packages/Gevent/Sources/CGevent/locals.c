#include <stdio.h>
#include <stdlib.h>

#include "gevent_locals.h"

#include "gevent_records.h"

gevent_locals *gevent_locals_make(gevent_hub *hub) {
    gevent_locals *locals = gevent_record_take(hub);
    *locals = (gevent_locals){.mask = GEVENT_LOCALS_FIRST - 1};
    locals->slots = locals->first;
    return locals;
}

void gevent_locals_free(gevent_hub *hub, gevent_locals *locals) {
    if (locals->slots != locals->first) free(locals->slots);
    gevent_record_release(hub, locals);
}

static void insert(gevent_locals *locals, gevent_local_slot slot) {
    uint32_t index = (uint32_t)slot.key & locals->mask;
    while (locals->slots[index].key) index = (index + 1) & locals->mask;
    locals->slots[index] = slot;
}

static void grow(gevent_locals *locals) {
    uint32_t capacity = locals->mask + 1;
    gevent_local_slot *old = locals->slots, *larger = calloc(capacity * 2, sizeof *larger);
    if (!larger) {
        fputs("gevent: out of memory for greenlet locals\n", stderr);
        abort();
    }
    locals->slots = larger;
    locals->mask = capacity * 2 - 1;
    for (uint32_t i = 0; i < capacity; i++)
        if (old[i].key) insert(locals, old[i]);
    if (old != locals->first) free(old);
}

void gevent_locals_add(gevent_locals *locals, uint64_t key, void *cell) {
    uint32_t capacity = locals->mask + 1;
    // All slots of the initial array may be used, because probing so few is fast. Larger tables are at most half full.
    if (locals->count >= (capacity == GEVENT_LOCALS_FIRST ? capacity : capacity / 2)) grow(locals);
    insert(locals, (gevent_local_slot){key, cell});
    locals->count++;
}

/// Removes the cell at `hole` and returns it. Moves later cells of the probe sequence into the gap.
static void *remove_at(gevent_locals *locals, uint32_t hole) {
    uint32_t mask = locals->mask;
    gevent_local_slot *slots = locals->slots;
    void *cell = slots[hole].cell;
    for (uint32_t index = (hole + 1) & mask; index != hole && slots[index].key; index = (index + 1) & mask) {
        uint32_t home = (uint32_t)slots[index].key & mask;
        // A cell may move to the hole unless its home slot lies between the hole and its current slot.
        if (((index - home) & mask) < ((index - hole) & mask)) continue;
        slots[hole] = slots[index];
        hole = index;
    }
    slots[hole] = (gevent_local_slot){0};
    locals->count--;
    return cell;
}

void *gevent_locals_remove(gevent_locals *locals, uint64_t key) {
    uint32_t mask = locals->mask, index = (uint32_t)key & mask;
    for (uint32_t probes = 0; probes <= mask; probes++, index = (index + 1) & mask) {
        if (locals->slots[index].key == key) return remove_at(locals, index);
        if (locals->slots[index].key == 0) return NULL;
    }
    return NULL;
}

void *gevent_locals_remove_any(gevent_locals *locals) {
    if (locals->count == 0) return NULL;
    uint32_t index = 0;
    while (!locals->slots[index].key) index++;
    return remove_at(locals, index);
}

void *gevent_locals_next(const gevent_locals *locals, uint32_t *index) {
    while (*index <= locals->mask) {
        const gevent_local_slot *slot = &locals->slots[(*index)++];
        if (slot->key) return slot->cell;
    }
    return NULL;
}
