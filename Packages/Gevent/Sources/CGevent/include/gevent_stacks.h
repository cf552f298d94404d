// Stacks: slots cut from large slabs of address space, guarded at the low end, reused last in, first out.
#pragma once

#include "gevent_context.h"

/// How the low end of a stack is protected.
enum {
    GEVENT_GUARD_MARKERS = 1,   // MADV_GUARD_INSTALL (Linux 6.13): page table markers, no new mapping
    GEVENT_GUARD_MPROTECT = 2,  // mprotect: two mappings a stack, so the kernel's map limit caps their number
};

typedef struct gevent_stacks {
    size_t slot_size;   // the whole slot, guard included
    size_t guard_size;
    size_t page_size;
    int guard_kind;
    size_t slots_per_slab;
    size_t limit;  // most slots there may be; SIZE_MAX if only address space limits them

    char **slabs;
    size_t slab_count, slab_capacity;
    size_t used_in_last_slab;

    gevent_context *free;  // hottest first; their pages are resident
    size_t free_count;
    uint32_t *trimmed;     // slots whose pages went back to the kernel
    size_t trimmed_count, trimmed_capacity;

    size_t live_count, peak_live_count;
} gevent_stacks;

/// Which guard the running kernel offers; probed once.
int gevent_stacks_guard_kind(void);

/// Makes the kernel look as if it had no guard markers, for tests of the fallback. Before the first hub only.
void gevent_stacks_force_mprotect(bool force);

/// `slot_size` is rounded up to whole pages, an odd number of them. The guard is 64 KiB, or a quarter of a small slot.
void gevent_stacks_init(gevent_stacks *stacks, size_t slot_size);
void gevent_stacks_destroy(gevent_stacks *stacks);

/// A context at the top of a free stack, or null with errno set: ENOMEM without address space, EAGAIN at the limit.
gevent_context *gevent_stacks_take(gevent_stacks *stacks);
void gevent_stacks_give_back(gevent_stacks *stacks, gevent_context *context);

/// Returns the pages of up to `most` free stacks to the kernel, keeping `keep` hot ones. Returns how many.
size_t gevent_stacks_trim(gevent_stacks *stacks, size_t keep, size_t most);

/// Calls `visit` with every context whose stack is in use. For reports: linear in the stacks ever used.
void gevent_stacks_for_each(gevent_stacks *stacks, void (*visit)(gevent_context *context, void *argument), void *argument);

/// How many slots were ever cut.
size_t gevent_stacks_slot_count(const gevent_stacks *stacks);

/// The context at the top of a slot, all zero if the slot was trimmed.
gevent_context *gevent_stacks_in_slot(const gevent_stacks *stacks, uint32_t slot);

/// The context whose slot holds `address`, or null. Linear in the slabs.
gevent_context *gevent_stacks_find(const gevent_stacks *stacks, const void *address);

/// The lowest address of the slot that holds `address`, its guard included, or of the reserve below the slots; null if
/// the address is in no slab. Reads no memory of any stack, so it can be trusted after one was overwritten. Linear in
/// the slabs.
const char *gevent_stacks_low(const gevent_stacks *stacks, const void *address);

/// How deep a context's stack has ever been in use, in bytes, whoever used it: from its top to the lowest byte that is
/// not zero in a page that is there. Looks through memory; changes none.
size_t gevent_stack_used(const gevent_context *context);

/// The same, the most over all stacks that were not trimmed. Linear in the stacks ever used.
size_t gevent_stacks_most_used(const gevent_stacks *stacks);
