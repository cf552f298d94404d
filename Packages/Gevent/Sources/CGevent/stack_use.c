#define _GNU_SOURCE
#include <stdint.h>
#include <sys/mman.h>
#include <unistd.h>

#include "gevent_context.h"
#include "gevent_stacks.h"

// Reads memory of other frames, to which the sanitizers would object.
__attribute__((no_sanitize("address", "thread"))) static const char *first_used(const char *low, const char *high) {
    for (const uintptr_t *word = (const uintptr_t *)low; word < (const uintptr_t *)high; word++)
        if (*word) return (const char *)word;
    return high;
}

char *gevent_first_resident_page(char *low, char *high) {
    enum { AT_ONCE = 256 };
    unsigned char resident[AT_ONCE];
    size_t page = (size_t)sysconf(_SC_PAGESIZE);
    for (char *from = low; from < high; from += page * AT_ONCE) {
        size_t left = ((size_t)(high - from) + page - 1) / page, count = left < AT_ONCE ? left : AT_ONCE;
        if (mincore(from, count * page, resident) != 0) return high;
        for (size_t i = 0; i < count; i++)
            if (resident[i] & 1) return from + i * page;
    }
    return high;
}

size_t gevent_stack_used(const gevent_context *context) {
    size_t page = (size_t)sysconf(_SC_PAGESIZE);
    char *high = context->stack_high, *start;
    // A page that is not resident holds nothing. A swapped-out page counts as not resident, so the result may be too
    // low on a system that swaps.
    for (char *from = context->stack_low; (start = gevent_first_resident_page(from, high)) < high; from = start + page) {
        const char *end = start + page < high ? start + page : high, *used = first_used(start, end);
        if (used == end) continue;
        size_t depth = (size_t)(high - used);
        return depth > context->deepest_shed ? depth : context->deepest_shed;
    }
    return context->deepest_shed;
}

size_t gevent_stacks_most_used(const gevent_stacks *stacks) {
    size_t deepest = 0, used;
    size_t count = gevent_stacks_slot_count(stacks);
    for (size_t slot = 0; slot < count; slot++) {
        const gevent_context *context = gevent_stacks_in_slot(stacks, (uint32_t)slot);
        // A trimmed slot's context was released with its page.
        if (context->stack_high && (used = gevent_stack_used(context)) > deepest) deepest = used;
    }
    return deepest;
}
