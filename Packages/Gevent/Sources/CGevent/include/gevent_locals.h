// The values of greenlet locals in one greenlet: a small hash table with open addressing. Its key is the number of the
// local, which is never reused.
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct gevent_hub;

typedef struct gevent_local_slot {
    uint64_t key;  // 0 if the slot is free
    void *cell;    // a retained Swift object
} gevent_local_slot;

enum { GEVENT_LOCALS_FIRST = 2 };

typedef struct gevent_locals {
    uint32_t mask, count;
    gevent_local_slot *slots;
    gevent_local_slot first[GEVENT_LOCALS_FIRST];  // few greenlets have more values, so few allocate
} gevent_locals;

/// Makes an empty table, which is a record of the hub.
gevent_locals *gevent_locals_make(struct gevent_hub *hub);

/// Frees an empty table. `hub` is null if the table's hub is destroyed.
void gevent_locals_free(struct gevent_hub *hub, gevent_locals *locals);

/// Returns the cell of `key`, or null. Keys are assigned in sequence, so they need no hashing.
static inline void *gevent_locals_find(const gevent_locals *locals, uint64_t key) {
    uint32_t mask = locals->mask, index = (uint32_t)key & mask;
    for (uint32_t probes = 0; probes <= mask; probes++, index = (index + 1) & mask) {
        if (locals->slots[index].key == key) return locals->slots[index].cell;
        if (locals->slots[index].key == 0) return NULL;
    }
    return NULL;
}

/// Adds a cell for a key that has none. Aborts if memory is exhausted.
void gevent_locals_add(gevent_locals *locals, uint64_t key, void *cell);

/// Removes the cell of `key` and returns it; null if there is none.
void *gevent_locals_remove(gevent_locals *locals, uint64_t key);

/// Removes any cell and returns it; null if the table is empty.
void *gevent_locals_remove_any(gevent_locals *locals);

/// Iterates over the cells: returns the first cell at or after `*index`, and sets `*index` to the next slot. Returns
/// null after the last cell.
void *gevent_locals_next(const gevent_locals *locals, uint32_t *index);
