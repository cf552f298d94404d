// The stacks of a hub, of all sizes.
#pragma once

#include "gevent_hub.h"

/// Returns the smallest class whose stacks have `bytes`; 0 if that is the size requested for the hub's default stacks.
uint8_t gevent_hub_stack_class(const gevent_hub *hub, size_t bytes);

/// Returns the stacks of a class; null if there are none yet.
static inline gevent_stacks *gevent_hub_stacks(const gevent_hub *hub, uint8_t stack_class) {
    return hub->sized_stacks[stack_class];
}

/// Returns the stacks whose slabs contain `address`, or null. Reads no memory of any stack.
const gevent_stacks *gevent_hub_stacks_containing(const gevent_hub *hub, const void *address);

/// gevent_stacks_find for the stacks of all sizes.
gevent_context *gevent_hub_find_stack(const gevent_hub *hub, const void *address);

/// gevent_stacks_for_each for the stacks of all sizes.
void gevent_hub_for_each_stack(gevent_hub *hub, void (*visit)(gevent_context *context, void *argument), void *argument);

/// Return the number of slots ever cut, and the number of free ones that keep their memory.
size_t gevent_hub_stack_count(const gevent_hub *hub);
size_t gevent_hub_idle_stacks(const gevent_hub *hub);

/// gevent_stacks_trim for the stacks of all sizes. Of each size it keeps `keep` free stacks, or as many as are in
/// use if that is more.
size_t gevent_hub_trim_stacks(gevent_hub *hub, size_t keep, size_t max_count);

/// Releases part of the memory of idle stacks, in bounded time; for the hub when nothing is ready. Returns when it
/// should be called again: `now` if there is more to do at once, INT64_MAX if there is nothing to do until a greenlet
/// has run.
///
/// A sweep over all stacks takes place at most once a second, and less often with more than 10,000 stacks, so that it
/// costs at most 1 % of the processor.
int64_t gevent_hub_shed_stacks(gevent_hub *hub, int64_t now);

/// Returns a stack of a class other than the default; null without memory, and at the limit.
gevent_context *gevent_hub_take_stack(gevent_hub *hub, uint8_t stack_class);
