#define _GNU_SOURCE
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "gevent_sanitizers.h"
#include "gevent_stacks.h"

#ifndef MADV_GUARD_INSTALL
#define MADV_GUARD_INSTALL 102
#endif

enum {
    SLAB_SIZE = 64 << 20,
    // Swift emits no stack probes, so a large frame can step over a small guard. In bytes and not in pages: sixteen
    // pages of 64 KiB would be a whole stack. The largest frame in Swift's own libraries has 33 KiB.
    GUARD_SIZE = 64 << 10,
    // Unused address space below the lowest stack of a slab: a frame that steps over the guard of that stack lands
    // here, where it overwrites nothing and is recognised.
    RESERVE_SIZE = 1 << 20,
    // At least one page to use and one to guard, and an odd number.
    MIN_PAGES = 3,
    // Equal offsets in equal slots map to the same cache sets, so tops are staggered by eight distances. With sixteen,
    // the lowest tops leave ordinary frames too little of their page, and two greenlets in five use a second page.
    STAGGER = 128,
    STAGGER_STEPS = 8,
    // Memory that a free stack keeps, counted from the top: as much as ordinary code uses.
    WARM_SIZE = 16 << 10,
};

static bool forced_mprotect = false;

void gevent_stacks_force_mprotect(bool force) { forced_mprotect = force; }

int gevent_stacks_guard_kind(void) {
    // Two threads that probe at the same time get the same result.
    static int probed = 0;
    if (forced_mprotect) return GEVENT_GUARD_MPROTECT;
    if (!__atomic_load_n(&probed, __ATOMIC_RELAXED)) {
        size_t page = (size_t)sysconf(_SC_PAGESIZE);
        void *test = mmap(NULL, page, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        if (test == MAP_FAILED) return GEVENT_GUARD_MPROTECT;
        // Verified, because an emulator may accept advice that it does not know. The page is passed to a system call
        // that reads it (a signal set of zeros to unblock), which must fail.
        bool is_guarded = madvise(test, page, MADV_GUARD_INSTALL) == 0 &&
                          syscall(SYS_rt_sigprocmask, SIG_UNBLOCK, test, NULL, _NSIG / 8) == -1 && errno == EFAULT;
        int kind = is_guarded ? GEVENT_GUARD_MARKERS : GEVENT_GUARD_MPROTECT;
        munmap(test, page);
        __atomic_store_n(&probed, kind, __ATOMIC_RELAXED);
    }
    return __atomic_load_n(&probed, __ATOMIC_RELAXED);
}

/// Returns the limit with mprotect, where every stack takes two mappings. Leaves half of the kernel's limit to the rest
/// of the process.
static size_t limit_by_mappings(void) {
    size_t limit = 65530;
    FILE *file = fopen("/proc/sys/vm/max_map_count", "re");
    if (file) {
        if (fscanf(file, "%zu", &limit) != 1) limit = 65530;
        fclose(file);
    }
    return limit / 4;
}

size_t gevent_stack_class_size(uint8_t stack_class) {
    return stack_class == 0 ? 0 : (size_t)GEVENT_STACK_MIN << (stack_class - 1);
}

void gevent_stacks_init(gevent_stacks *stacks, size_t slot_size, uint8_t stack_class) {
    *stacks = (gevent_stacks){.stack_class = stack_class};
    size_t page = (size_t)sysconf(_SC_PAGESIZE);
    stacks->page_size = page;
    // Tops whose distance is a power of two would share a few sets of the TLB, and with a thousand greenlets every
    // switch would cause a page walk. So the number of pages is odd. Some processors compute the set from the page
    // number by exclusive or, so one page more than a power of two is as bad (9.4 ns a yield instead of 7.3 with a
    // thousand).
    size_t pages = (slot_size + page - 1) / page;
    pages = (pages + pages / 32) | 1;
    if (pages < MIN_PAGES) pages = MIN_PAGES;
    stacks->slot_size = pages * page;
    size_t guard_pages = (GUARD_SIZE + page - 1) / page;
    // A small stack uses at most a quarter of itself as guard.
    if (guard_pages > pages / 4) guard_pages = pages / 4;
    if (guard_pages == 0) guard_pages = 1;
    stacks->guard_size = guard_pages * page;
    stacks->guard_kind = gevent_stacks_guard_kind();
    stacks->slots_per_slab = (SLAB_SIZE - RESERVE_SIZE) / stacks->slot_size;
    if (stacks->slots_per_slab == 0) stacks->slots_per_slab = 1;
    stacks->limit = stacks->guard_kind == GEVENT_GUARD_MARKERS ? SIZE_MAX : limit_by_mappings();
    stacks->used_in_last_slab = stacks->slots_per_slab;
}

static size_t slab_size(const gevent_stacks *stacks) {
    return RESERVE_SIZE + stacks->slots_per_slab * stacks->slot_size;
}

size_t gevent_stacks_slot_count(const gevent_stacks *stacks) {
    if (stacks->slab_count == 0) return 0;
    return (stacks->slab_count - 1) * stacks->slots_per_slab + stacks->used_in_last_slab;
}

/// Returns the lowest address of a slot. Slots are cut from the top of a slab downwards.
static char *slot_low(const gevent_stacks *stacks, uint32_t slot) {
    size_t from_top = slot % stacks->slots_per_slab + 1;
    return stacks->slabs[slot / stacks->slots_per_slab] + slab_size(stacks) - from_top * stacks->slot_size;
}

/// Returns a slot's context. It is at a fixed offset, so that a walk over the slabs finds it.
static gevent_context *context_in_slot(const gevent_stacks *stacks, uint32_t slot) {
    char *top = slot_low(stacks, slot) + stacks->slot_size - slot % STAGGER_STEPS * STAGGER;
    return (gevent_context *)((uintptr_t)(top - sizeof(gevent_context)) & ~(uintptr_t)63);
}

gevent_context *gevent_stacks_in_slot(const gevent_stacks *stacks, uint32_t slot) { return context_in_slot(stacks, slot); }

static gevent_context *prepare(gevent_stacks *stacks, uint32_t slot) {
    gevent_context *context = context_in_slot(stacks, slot);
    memset(context, 0, sizeof *context);
    context->slot = slot;
    context->stack_class = stacks->stack_class;
    context->stack_low = slot_low(stacks, slot) + stacks->guard_size;
    context->stack_high = (char *)context;
    gevent_list_init(&context->timeouts);
    return context;
}

static bool add_slab(gevent_stacks *stacks) {
    if (stacks->slab_count == stacks->slab_capacity) {
        size_t capacity = stacks->slab_capacity ? stacks->slab_capacity * 2 : 16;
        char **slabs = realloc(stacks->slabs, capacity * sizeof *slabs);
        if (!slabs) return false;
        stacks->slabs = slabs;
        stacks->slab_capacity = capacity;
    }
    int flags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_STACK;
    void *slab = mmap(NULL, slab_size(stacks), PROT_READ | PROT_WRITE, flags, -1, 0);
    if (slab == MAP_FAILED) return false;
    // A huge page under a stack would take 2 MiB instead of 4 KiB.
    madvise(slab, slab_size(stacks), MADV_NOHUGEPAGE);
    stacks->slabs[stacks->slab_count++] = slab;
    stacks->used_in_last_slab = 0;
    return true;
}

static bool install_guard(gevent_stacks *stacks, char *low) {
    if (stacks->guard_kind == GEVENT_GUARD_MARKERS) return madvise(low, stacks->guard_size, MADV_GUARD_INSTALL) == 0;
    return mprotect(low, stacks->guard_size, PROT_NONE) == 0;
}

#if GEVENT_ASAN
/// Returns the size of the part of a stack that LeakSanitizer searches for references. It reads every byte, used or
/// not; searching whole stacks would delay the end of a run with a thousand greenlets by 0.3 s.
static size_t leak_roots_size(const gevent_stacks *stacks) {
    enum { MAX_SIZE = 256 << 10 };
    size_t usable = stacks->slot_size - stacks->guard_size;
    return usable < MAX_SIZE ? usable : MAX_SIZE;
}

static char *leak_roots(const gevent_stacks *stacks, char *low) {
    return low + stacks->slot_size - leak_roots_size(stacks);
}
#endif

size_t gevent_stacks_live_count(const gevent_stacks *stacks) {
    return gevent_stacks_slot_count(stacks) - stacks->free_count - stacks->trimmed_count;
}

bool gevent_stacks_are_at_limit(const gevent_stacks *stacks) {
    return gevent_stacks_slot_count(stacks) >= stacks->limit;
}

gevent_context *gevent_stacks_take(gevent_stacks *stacks) {
    gevent_context *context = stacks->free;
    if (context) {
        stacks->free = context->next_free;
        stacks->free_count--;
        return context;
    }
    if (stacks->trimmed_count > 0) {
        // The guard survived the trim; the context did not.
        uint32_t slot = stacks->trimmed[--stacks->trimmed_count];
        stacks->is_trimmed[slot] = false;
        return prepare(stacks, slot);
    }
    if (gevent_stacks_are_at_limit(stacks)) {
        errno = EAGAIN;
        return NULL;
    }
    if (stacks->used_in_last_slab == stacks->slots_per_slab && !add_slab(stacks)) {
        errno = ENOMEM;
        return NULL;
    }
    uint32_t slot = (uint32_t)gevent_stacks_slot_count(stacks);
    char *low = slot_low(stacks, slot);
    if (!install_guard(stacks, low)) {
        errno = ENOMEM;
        return NULL;
    }
    stacks->used_in_last_slab++;
#if GEVENT_ASAN
    // Objects that only a parked greenlet references are not leaks. The guard is excluded: LeakSanitizer would read it.
    __lsan_register_root_region(leak_roots(stacks, low), leak_roots_size(stacks));
#endif
    return prepare(stacks, slot);
}

void gevent_stacks_release(gevent_stacks *stacks, gevent_context *context) {
    context->owner = NULL;
    context->idle_state = GEVENT_IDLE_FRESH;
    context->next_free = stacks->free;
    stacks->free = context;
    stacks->free_count++;
}

static bool make_room_for_trimmed(gevent_stacks *stacks) {
    size_t capacity = gevent_stacks_slot_count(stacks);
    if (stacks->trimmed_capacity >= capacity) return true;
    uint32_t *trimmed = realloc(stacks->trimmed, capacity * sizeof *trimmed);
    if (!trimmed) return false;
    stacks->trimmed = trimmed;
    bool *is_trimmed = realloc(stacks->is_trimmed, capacity * sizeof *is_trimmed);
    if (!is_trimmed) return false;
    memset(is_trimmed + stacks->trimmed_capacity, 0, (capacity - stacks->trimmed_capacity) * sizeof *is_trimmed);
    stacks->is_trimmed = is_trimmed;
    stacks->trimmed_capacity = capacity;
    return true;
}

size_t gevent_stacks_trim(gevent_stacks *stacks, size_t keep, size_t max_count) {
    if (stacks->free_count <= keep || !make_room_for_trimmed(stacks)) return 0;
    // The most recently used `keep` stay at the head of the list; those behind them are trimmed.
    gevent_context **link = &stacks->free;
    for (size_t i = 0; i < keep; i++) link = &(*link)->next_free;
    size_t count = 0;
    for (; *link && count < max_count; count++) {
        gevent_context *context = *link;
        *link = context->next_free;
        stacks->trimmed[stacks->trimmed_count++] = context->slot;
        stacks->is_trimmed[context->slot] = true;
        GEVENT_TSAN_DESTROY_FIBER(context);
        // MADV_DONTNEED keeps guard markers. It also releases the page of the context.
        madvise(context->stack_low, stacks->slot_size - stacks->guard_size, MADV_DONTNEED);
    }
    stacks->free_count -= count;
    return count;
}

/// Returns the lowest address of the memory that an idle stack keeps; null if the stack is not idle.
static char *shed_limit(const gevent_stacks *stacks, const gevent_context *context) {
    uintptr_t limit;
    if (!context->owner)
        limit = (uintptr_t)context->stack_high - WARM_SIZE;
    else if (context->wait_state == GEVENT_WAIT_PARKED)
        limit = (uintptr_t)context->stack_pointer - stacks->page_size;
    else
        return NULL;
    return (char *)(limit & ~(uintptr_t)(stacks->page_size - 1));
}

bool gevent_stacks_shed(gevent_stacks *stacks, uint32_t *next, bool *needs_another_sweep) {
    // Examining a slot costs a cache miss, and releasing memory takes up to 80 microseconds.
    enum { MAX_EXAMINED = 256, MAX_SHED = 16 };
    uint32_t count = (uint32_t)gevent_stacks_slot_count(stacks);
    size_t shed = 0;
    for (size_t examined = 0; *next < count && examined < MAX_EXAMINED && shed < MAX_SHED; examined++) {
        uint32_t slot = (*next)++;
        // The page with a trimmed slot's context was released, and reading it would allocate it again.
        if (slot < stacks->trimmed_capacity && stacks->is_trimmed[slot]) continue;
        gevent_context *context = context_in_slot(stacks, slot);
        char *limit = shed_limit(stacks, context);
        if (!limit || context->idle_state == GEVENT_IDLE_SHED) continue;
        if (context->idle_state == GEVENT_IDLE_FRESH) {
            context->idle_state = GEVENT_IDLE_SEEN;
            *needs_another_sweep = true;
            continue;
        }
        context->idle_state = GEVENT_IDLE_SHED;
        if (limit <= context->stack_low) continue;
        char *lowest = gevent_first_resident_page(context->stack_low, limit);
        shed++;
        if (lowest == limit) continue;
        uint32_t depth = (uint32_t)(context->stack_high - lowest);
        if (depth > context->deepest_shed) context->deepest_shed = depth;
        madvise(lowest, (size_t)(limit - lowest), MADV_DONTNEED);
    }
    return *next >= count;
}

void gevent_stacks_for_each(gevent_stacks *stacks, void (*visit)(gevent_context *, void *), void *argument) {
    uint32_t count = (uint32_t)gevent_stacks_slot_count(stacks);
    for (uint32_t slot = 0; slot < count; slot++) {
        gevent_context *context = context_in_slot(stacks, slot);
        if (context->owner) visit(context, argument);
    }
}

void gevent_stacks_destroy(gevent_stacks *stacks) {
#if GEVENT_ASAN || GEVENT_TSAN
    uint32_t count = (uint32_t)gevent_stacks_slot_count(stacks);
    for (uint32_t slot = 0; slot < count; slot++) {
        GEVENT_TSAN_DESTROY_FIBER(context_in_slot(stacks, slot));
#if GEVENT_ASAN
        char *low = slot_low(stacks, slot);
        __lsan_unregister_root_region(leak_roots(stacks, low), leak_roots_size(stacks));
        __asan_unpoison_memory_region(low, stacks->slot_size);
#endif
    }
#endif
    for (size_t slab = 0; slab < stacks->slab_count; slab++) munmap(stacks->slabs[slab], slab_size(stacks));
    free(stacks->slabs);
    free(stacks->trimmed);
    free(stacks->is_trimmed);
    *stacks = (gevent_stacks){0};
}

/// Returns the start of the slab that contains `address`, and sets its index; null if none does.
static char *find_slab(const gevent_stacks *stacks, const void *address, size_t *number) {
    for (size_t slab = 0; slab < stacks->slab_count; slab++) {
        char *low = stacks->slabs[slab];
        if ((const char *)address < low || (const char *)address >= low + slab_size(stacks)) continue;
        *number = slab;
        return low;
    }
    return NULL;
}

gevent_context *gevent_stacks_find(const gevent_stacks *stacks, const void *address) {
    size_t number;
    char *low = find_slab(stacks, address, &number);
    if (!low || (const char *)address < low + RESERVE_SIZE) return NULL;
    size_t from_top = (size_t)(low + slab_size(stacks) - 1 - (const char *)address) / stacks->slot_size;
    return context_in_slot(stacks, (uint32_t)(number * stacks->slots_per_slab + from_top));
}

const char *gevent_stacks_low(const gevent_stacks *stacks, const void *address) {
    size_t number;
    const char *low = find_slab(stacks, address, &number);
    if (!low) return NULL;
    const char *lowest = low + RESERVE_SIZE, *position = address;
    if (position < lowest) return low;
    return lowest + (size_t)(position - lowest) / stacks->slot_size * stacks->slot_size;
}
