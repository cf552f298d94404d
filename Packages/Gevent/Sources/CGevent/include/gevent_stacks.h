// Stacks: slots cut from large slabs of address space, guarded at the low end, and reused last in, first out.
#pragma once

#include "gevent_context.h"

/// The ways to guard the low end of a stack.
enum {
    GEVENT_GUARD_MARKERS = 1,   // MADV_GUARD_INSTALL (Linux 6.13): page table markers, no new mappings
    GEVENT_GUARD_MPROTECT = 2,  // mprotect: two mappings per stack, so the kernel's map limit caps their number
};

/// Sizes other than the default: powers of two from the minimum to the maximum. Class 0 is the default, class 1 the
/// minimum.
enum {
    GEVENT_STACK_MIN = 16 << 10,
    GEVENT_STACK_MAX = 64 << 20,
    GEVENT_STACK_CLASSES = 13,
};

/// Returns the size of a class in bytes, before rounding to pages; 0 for the default class.
size_t gevent_stack_class_size(uint8_t stack_class);

typedef struct gevent_stacks {
    size_t slot_size;   // the whole slot, guard included
    size_t guard_size;
    size_t page_size;
    int guard_kind;
    uint8_t stack_class;  // the class of the contexts in these slots
    size_t slots_per_slab;
    size_t limit;  // maximum number of slots; SIZE_MAX if only address space limits it

    char **slabs;
    size_t slab_count, slab_capacity;
    size_t used_in_last_slab;

    gevent_context *free;  // most recently used first; their pages are resident
    size_t free_count;
    uint32_t *trimmed;     // slots whose pages were returned to the kernel
    bool *is_trimmed;      // the same by slot, for slots below trimmed_capacity
    size_t trimmed_count, trimmed_capacity;
} gevent_stacks;

/// Returns which guard the running kernel supports; probed once.
int gevent_stacks_guard_kind(void);

/// Disables guard markers, for tests of the fallback. Before the first hub only.
void gevent_stacks_force_mprotect(bool force);

/// Initialises stacks. `slot_size` is rounded up by a thirty-second and to an odd number of pages. The guard is 64 KiB,
/// or a quarter of a small slot.
void gevent_stacks_init(gevent_stacks *stacks, size_t slot_size, uint8_t stack_class);
void gevent_stacks_destroy(gevent_stacks *stacks);

/// Returns a context at the top of a free stack, or null with errno set: ENOMEM without address space, EAGAIN at the
/// limit.
gevent_context *gevent_stacks_take(gevent_stacks *stacks);
void gevent_stacks_release(gevent_stacks *stacks, gevent_context *context);

/// Returns the pages of up to `max_count` free stacks to the kernel, except those of the `keep` most recently used.
/// Returns how many were trimmed.
size_t gevent_stacks_trim(gevent_stacks *stacks, size_t keep, size_t max_count);

/// Returns unneeded memory of idle stacks to the kernel: all but the top of a free stack, and everything below the
/// stack pointer of a parked one. A stack is idle if a second sweep finds it free or parked and no greenlet has run on
/// it since the first. Each idle stack is shed once.
///
/// Examines a bounded number of slots from `*next`, and advances it. Sets `*needs_another_sweep` if it has seen an idle
/// stack for the first time. Returns whether it has reached the last slot.
bool gevent_stacks_shed(gevent_stacks *stacks, uint32_t *next, bool *needs_another_sweep);

/// Calls `visit` with every context whose stack is in use. For reports: linear in the stacks ever used.
void gevent_stacks_for_each(
    gevent_stacks *stacks, void (*visit)(gevent_context *context, void *argument), void *argument);

/// Returns how many stacks are in use.
size_t gevent_stacks_live_count(const gevent_stacks *stacks);

/// Returns whether the limit allows no further slot.
bool gevent_stacks_are_at_limit(const gevent_stacks *stacks);

/// Returns how many slots were ever cut.
size_t gevent_stacks_slot_count(const gevent_stacks *stacks);

/// Returns the context at the top of a slot; all zero if the slot was trimmed.
gevent_context *gevent_stacks_in_slot(const gevent_stacks *stacks, uint32_t slot);

/// Returns the context whose slot contains `address`, or null. Linear in the slabs.
gevent_context *gevent_stacks_find(const gevent_stacks *stacks, const void *address);

/// Returns the lowest address of the slot that contains `address`, guard included, or of the reserve below the slots;
/// null if the address is in no slab. Reads no memory of any stack, so it can be trusted after one was overwritten.
/// Linear in the slabs.
const char *gevent_stacks_low(const gevent_stacks *stacks, const void *address);

/// Returns the maximum depth to which a context's stack was ever used, in bytes, by any greenlet: from its top to the
/// lowest nonzero byte in a resident page, or to the lowest page that was shed. Reads the memory; changes nothing.
size_t gevent_stack_used(const gevent_context *context);

/// Returns the lowest resident page between two addresses; `high` if there is none. `low` is the start of a page.
char *gevent_first_resident_page(char *low, char *high);

/// Returns the maximum of gevent_stack_used over all stacks that were not trimmed. Linear in the stacks ever used.
size_t gevent_stacks_most_used(const gevent_stacks *stacks);

/// Returns how many bytes of a stack are usable.
static inline size_t gevent_stacks_room(const gevent_stacks *stacks) { return stacks->slot_size - stacks->guard_size; }
