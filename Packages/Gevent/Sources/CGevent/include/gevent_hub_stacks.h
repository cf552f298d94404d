// The stacks of a hub, of all sizes.
#pragma once

#include "gevent_hub.h"

/// The class of the smallest stacks that have `bytes`: 0 if that is what the hub's own were asked to have.
uint8_t gevent_hub_stack_class(const gevent_hub *hub, size_t bytes);

/// The stacks of a class; null if there are none yet.
gevent_stacks *gevent_hub_stacks(gevent_hub *hub, uint8_t stack_class);

/// The stacks in one of whose slabs `address` lies; null if it does in none. Reads no memory of any stack.
const gevent_stacks *gevent_hub_stacks_around(const gevent_hub *hub, const void *address);

/// gevent_stacks_find in the stacks of all sizes.
gevent_context *gevent_hub_find_stack(const gevent_hub *hub, const void *address);

/// gevent_stacks_for_each for the stacks of all sizes.
void gevent_hub_for_each_stack(gevent_hub *hub, void (*visit)(gevent_context *context, void *argument), void *argument);

/// How many slots were ever cut, and how many of them are free with their memory.
size_t gevent_hub_stack_count(const gevent_hub *hub);
size_t gevent_hub_idle_stacks(const gevent_hub *hub);

/// gevent_stacks_trim for the stacks of all sizes; of each are kept `keep`, or as many as are in use.
size_t gevent_hub_trim_stacks(gevent_hub *hub, size_t keep, size_t most);

/// Takes a bounded step in giving back what idle stacks hold; for the hub when nothing is ready. Returns when it wants
/// to be called again: `now` if there is more to do at once, INT64_MAX if nothing is left to do until something has
/// run.
///
/// A sweep over all stacks takes place at most once a second, and less often with more than 10,000 stacks, so that it
/// costs at most 1 % of the processor.
int64_t gevent_hub_shed_stacks(gevent_hub *hub, int64_t now);

/// A stack of a size other than the default; null without memory, and at the limit.
gevent_context *gevent_hub_take_stack(gevent_hub *hub, uint8_t stack_class);
