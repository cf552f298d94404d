// Stacks: slots cut from large slabs of address space, guarded at the low end, reused last in, first out.
#pragma once

#include "gevent_context.h"

/// How the low end of a stack is protected.
enum {
    GEVENT_GUARD_MARKERS = 1,   // MADV_GUARD_INSTALL (Linux 6.13): page table markers, no new mapping
    GEVENT_GUARD_MPROTECT = 2,  // mprotect: two mappings a stack, so the kernel's map limit caps their number
};

/// Sizes other than the default: powers of two from the least to the most. Class 0 is the default, class 1 the least.
enum {
    GEVENT_STACK_LEAST = 16 << 10,
    GEVENT_STACK_MOST = 64 << 20,
    GEVENT_STACK_CLASSES = 13,
};

/// What was asked for in bytes, before it is rounded to pages; 0 for the default class.
size_t gevent_stack_class_size(uint8_t stack_class);

typedef struct gevent_stacks {
    size_t slot_size;   // the whole slot, guard included
    size_t guard_size;
    size_t page_size;
    int guard_kind;
    uint8_t stack_class;  // what contexts in these slots say
    size_t slots_per_slab;
    size_t limit;  // most slots there may be; SIZE_MAX if only address space limits them

    char **slabs;
    size_t slab_count, slab_capacity;
    size_t used_in_last_slab;

    gevent_context *free;  // hottest first; their pages are resident
    size_t free_count;
    uint32_t *trimmed;     // slots whose pages went back to the kernel
    bool *is_trimmed;      // the same by slot, for slots below trimmed_capacity
    size_t trimmed_count, trimmed_capacity;
} gevent_stacks;

/// Which guard the running kernel offers; probed once.
int gevent_stacks_guard_kind(void);

/// Makes the kernel look as if it had no guard markers, for tests of the fallback. Before the first hub only.
void gevent_stacks_force_mprotect(bool force);

/// `slot_size` is rounded up, by a thirty-second and to an odd number of pages. The guard is 64 KiB, or a quarter of a
/// small slot.
void gevent_stacks_init(gevent_stacks *stacks, size_t slot_size, uint8_t stack_class);
void gevent_stacks_destroy(gevent_stacks *stacks);

/// A context at the top of a free stack, or null with errno set: ENOMEM without address space, EAGAIN at the limit.
gevent_context *gevent_stacks_take(gevent_stacks *stacks);
void gevent_stacks_release(gevent_stacks *stacks, gevent_context *context);

/// Returns the pages of up to `most` free stacks to the kernel, keeping `keep` hot ones. Returns how many.
size_t gevent_stacks_trim(gevent_stacks *stacks, size_t keep, size_t most);

/// Returns memory of idle stacks to the kernel that they hold below what they need: of a free one all but the top, of
/// a parked one what lies below its stack pointer. A stack is idle if it is seen free or parked a second time without
/// a greenlet having run on it meanwhile; each is shed once.
///
/// Looks at a bounded number of slots from `*next` on and moves it. Sets `*is_more_later` if it has seen a stack for
/// the first time. Returns whether it has come to the end.
bool gevent_stacks_shed(gevent_stacks *stacks, uint32_t *next, bool *is_more_later);

/// Calls `visit` with every context whose stack is in use. For reports: linear in the stacks ever used.
void gevent_stacks_for_each(
    gevent_stacks *stacks, void (*visit)(gevent_context *context, void *argument), void *argument);

/// How many stacks are in use.
size_t gevent_stacks_live_count(const gevent_stacks *stacks);

/// Whether another slot would be one more than there may be.
bool gevent_stacks_are_at_limit(const gevent_stacks *stacks);

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
/// not zero in a page that is there, or to the lowest page that was shed. Looks through memory; changes none.
size_t gevent_stack_used(const gevent_context *context);

/// The lowest page between two addresses that is in memory; `high` if none is. `low` is the start of a page.
char *gevent_first_resident_page(char *low, char *high);

/// The same, the most over all stacks that were not trimmed. Linear in the stacks ever used.
size_t gevent_stacks_most_used(const gevent_stacks *stacks);

/// How many bytes of a stack can be used.
static inline size_t gevent_stacks_room(const gevent_stacks *stacks) { return stacks->slot_size - stacks->guard_size; }
