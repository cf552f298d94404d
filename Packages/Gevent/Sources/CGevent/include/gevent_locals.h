// The values a greenlet has of greenlet locals: a small open hash table by the local's number, which is never used
// twice.
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct gevent_hub;

typedef struct gevent_local_slot {
    uint64_t key;  // 0 if it is free
    void *cell;    // a retained Swift object
} gevent_local_slot;

enum { GEVENT_LOCALS_FIRST = 2 };

typedef struct gevent_locals {
    uint32_t mask, count;
    gevent_local_slot *slots;
    gevent_local_slot first[GEVENT_LOCALS_FIRST];  // few greenlets have more, so few allocate any
} gevent_locals;

/// An empty table, a record of the hub's.
gevent_locals *gevent_locals_make(struct gevent_hub *hub);

/// Frees the table, which holds nothing any more. `hub` is null if its hub is gone.
void gevent_locals_free(struct gevent_hub *hub, gevent_locals *locals);

/// The cell of `key`, or null. Numbers are given in sequence, so they need no hashing.
static inline void *gevent_locals_find(const gevent_locals *locals, uint64_t key) {
    uint32_t mask = locals->mask, index = (uint32_t)key & mask;
    for (uint32_t looked = 0; looked <= mask; looked++, index = (index + 1) & mask) {
        if (locals->slots[index].key == key) return locals->slots[index].cell;
        if (locals->slots[index].key == 0) return NULL;
    }
    return NULL;
}

/// Adds a cell for a key that has none. Aborts without memory.
void gevent_locals_add(gevent_locals *locals, uint64_t key, void *cell);

/// Takes the cell of `key` out, and returns it; null if there is none.
void *gevent_locals_remove(gevent_locals *locals, uint64_t key);

/// Takes any cell out, and returns it; null if the table is empty.
void *gevent_locals_remove_any(gevent_locals *locals);

/// The cells one after another: the cell at or behind `*place`, which moves behind it; null after the last.
void *gevent_locals_next(const gevent_locals *locals, uint32_t *place);
