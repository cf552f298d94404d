#include "gevent_ready_queue.h"

#include <stdio.h>
#include <stdlib.h>

void gevent_ready_grow(gevent_hub *hub) {
    uint64_t capacity = hub->ready_mask + 1, larger = capacity * 2;
    uintptr_t *ring = malloc(larger * sizeof *ring);
    if (!ring) {
        fputs("gevent: out of memory for the ready queue\n", stderr);
        abort();
    }
    for (uint64_t i = hub->ready_head; i != hub->ready_tail; i++) ring[i & (larger - 1)] = hub->ready[i & hub->ready_mask];
    free(hub->ready);
    hub->ready = ring;
    hub->ready_mask = larger - 1;
}

void gevent_ready_move_to_front(gevent_hub *hub, uint64_t start) {
    uint64_t count = hub->ready_tail - start;
    if (count == 0 || start == hub->ready_head) return;
    while (hub->ready_mask + 1 - gevent_ready_count(hub) < count) gevent_ready_grow(hub);
    uint64_t head = hub->ready_head - count;
    for (uint64_t i = 0; i < count; i++)
        hub->ready[(head + i) & hub->ready_mask] = hub->ready[(start + i) & hub->ready_mask];
    hub->front_end = hub->ready_head;
    hub->moved_count += count;
    hub->ready_tail = start;
    hub->ready_head = head;
    gevent_ready_grant(hub, 0);
}

gevent_ready_entry gevent_ready_pop(gevent_hub *hub) {
    uintptr_t entry = hub->ready[hub->ready_head++ & hub->ready_mask];
    return (gevent_ready_entry){
        .pointer = (void *)(entry & ~(uintptr_t)GEVENT_READY_TAGS),
        .tag = (unsigned)(entry & GEVENT_READY_TAGS),
    };
}
