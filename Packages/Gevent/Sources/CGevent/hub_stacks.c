#include "gevent_hub_stacks.h"

#include <stdlib.h>

#include "gevent_ready_queue.h"

uint8_t gevent_hub_stack_class(const gevent_hub *hub, size_t bytes) {
    uint8_t stack_class = 1;
    while (gevent_stack_class_size(stack_class) < bytes) stack_class++;
    return gevent_stack_class_size(stack_class) == hub->stack_size ? 0 : stack_class;
}

gevent_context *gevent_hub_take_stack(gevent_hub *hub, uint8_t stack_class) {
    gevent_stacks *stacks = gevent_hub_stacks(hub, stack_class);
    if (!stacks) {
        stacks = malloc(sizeof *stacks);
        if (!stacks) return NULL;
        gevent_stacks_init(stacks, gevent_stack_class_size(stack_class), stack_class);
        hub->sized_stacks[stack_class] = stacks;
        if (stack_class > hub->largest_class) hub->largest_class = stack_class;
        if (gevent_stacks_room(stacks) < hub->stack_room) hub->stack_room = gevent_stacks_room(stacks);
    }
    if (hub->stacks.limit == SIZE_MAX) return gevent_stacks_take(stacks);
    // The limit applies to all sizes together: a stack of this size reduces the limit of the default size.
    size_t count = gevent_stacks_slot_count(stacks), others = gevent_stacks_slot_count(&hub->stacks);
    stacks->limit = count + (hub->stacks.limit > others ? hub->stacks.limit - others : 0);
    gevent_context *context = gevent_stacks_take(stacks);
    hub->stacks.limit -= gevent_stacks_slot_count(stacks) - count;
    return context;
}

const gevent_stacks *gevent_hub_stacks_containing(const gevent_hub *hub, const void *address) {
    for (uint8_t class = 0; class <= hub->largest_class; class++) {
        const gevent_stacks *stacks = gevent_hub_stacks(hub, class);
        if (stacks && gevent_stacks_low(stacks, address)) return stacks;
    }
    return NULL;
}

gevent_context *gevent_hub_find_stack(const gevent_hub *hub, const void *address) {
    const gevent_stacks *stacks = gevent_hub_stacks_containing(hub, address);
    return stacks ? gevent_stacks_find(stacks, address) : NULL;
}

void gevent_hub_for_each_stack(gevent_hub *hub, void (*visit)(gevent_context *, void *), void *argument) {
    for (uint8_t class = 0; class <= hub->largest_class; class++)
        if (gevent_hub_stacks(hub, class)) gevent_stacks_for_each(gevent_hub_stacks(hub, class), visit, argument);
}

size_t gevent_hub_stack_count(const gevent_hub *hub) {
    size_t count = 0;
    for (uint8_t class = 0; class <= hub->largest_class; class++)
        if (gevent_hub_stacks(hub, class)) count += gevent_stacks_slot_count(gevent_hub_stacks(hub, class));
    return count;
}

size_t gevent_hub_idle_stacks(const gevent_hub *hub) {
    size_t count = 0;
    for (uint8_t class = 0; class <= hub->largest_class; class++)
        if (gevent_hub_stacks(hub, class)) count += gevent_hub_stacks(hub, class)->free_count;
    return count;
}

size_t gevent_hub_trim_stacks(gevent_hub *hub, size_t keep, size_t max_count) {
    size_t trimmed = 0;
    for (uint8_t class = 0; class <= hub->largest_class && trimmed < max_count; class++) {
        gevent_stacks *stacks = gevent_hub_stacks(hub, class);
        if (!stacks || stacks->free_count <= keep) continue;
        size_t live = gevent_stacks_live_count(stacks);
        trimmed += gevent_stacks_trim(stacks, live > keep ? live : keep, max_count - trimmed);
    }
    return trimmed;
}

int64_t gevent_hub_shed_stacks(gevent_hub *hub, int64_t now) {
    enum { PERIOD = 1000000000, STACKS_A_PERIOD = 10000 };
    size_t count = gevent_hub_stack_count(hub);
    if (count == 0) return INT64_MAX;
    if (!hub->is_shedding) {
        // No greenlet has run since the last sweep, so no stack has become idle.
        if (!hub->needs_another_sweep && gevent_switch_count(hub) == hub->shed_switch_count) return INT64_MAX;
        if (now < hub->shed_due) return hub->shed_due;
        hub->is_shedding = true;
        hub->needs_another_sweep = false;
        hub->shed_switch_count = gevent_switch_count(hub);
        hub->shed_next = 0;
        hub->shed_class = 0;
    }
    for (; hub->shed_class <= hub->largest_class; hub->shed_class++, hub->shed_next = 0) {
        gevent_stacks *stacks = gevent_hub_stacks(hub, hub->shed_class);
        if (stacks && !gevent_stacks_shed(stacks, &hub->shed_next, &hub->needs_another_sweep)) return now;
    }
    hub->is_shedding = false;
    hub->shed_due = now + PERIOD * (int64_t)(1 + count / STACKS_A_PERIOD);
    return hub->needs_another_sweep ? hub->shed_due : INT64_MAX;
}
