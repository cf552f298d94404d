#include "gevent_frames.h"
#include "gevent_hub_stacks.h"
#include "gevent_monitor_memory.h"
#include "gevent_once.h"
#include "gevent_ready_queue.h"
#include "gevent_sample.h"

// A thread that waits for a lock which it holds itself never continues. This takes two greenlets: one parks while it
// holds the lock, and another waits for it. The most common such lock is that of a global's initializer, because it is
// invisible in the source.

typedef struct search {
    const gevent_hub *hub;
    uintptr_t address;
    gevent_self_deadlock *deadlock;
} search;

/// Whether the stack of a suspended context contains the lock's address. The holder's does, because it needs the
/// address to release the lock. Stacks of other greenlets that use the lock may contain it too.
static bool mentions_lock(const search *search, uintptr_t from, uintptr_t to) {
    uintptr_t words[512];
    while (from < to) {
        size_t size = to - from < sizeof words ? to - from : sizeof words;
        size_t count = gevent_copy_memory(words, from, size) / sizeof *words;
        for (size_t i = 0; i < count; i++) {
            // In Swift's once token the lock is the second half, so the token's address counts too.
            if (words[i] == search->address || words[i] == search->address - sizeof(uint32_t)) return true;
        }
        if (count == 0) return false;
        from += count * sizeof *words;
    }
    return false;
}

static void examine(search *search, const gevent_context *context, const void *stack_pointer) {
    gevent_self_deadlock *deadlock = search->deadlock;
    if (context == search->hub->current || !stack_pointer || deadlock->initializer >= 0) return;
    if (!mentions_lock(search, (uintptr_t)stack_pointer, (uintptr_t)context->stack_high)) return;
    size_t count = gevent_frames_at(stack_pointer, context->stack_high, deadlock->frames, GEVENT_SELF_DEADLOCK_FRAMES);
    deadlock->initializer = gevent_once_find(deadlock->frames, count);
    if (deadlock->initializer >= 0) {
        // This is the holder for certain, so it replaces the guesses.
        deadlock->holder_count = 0;
        deadlock->frame_count = count;
    }
    if (deadlock->holder_count == GEVENT_SELF_DEADLOCK_HOLDERS) return;
    gevent_identity *holder = &deadlock->holders[deadlock->holder_count++];
    gevent_describe_context(search->hub, context, holder);
    gevent_copy_memory(&holder->isa, (uintptr_t)holder->owner, sizeof holder->isa);
}

static void examine_parked(gevent_context *context, void *argument) {
    if (context->wait_state == GEVENT_WAIT_PARKED) examine(argument, context, context->stack_pointer);
}

bool gevent_find_self_deadlock(gevent_hub *hub, const gevent_sample *sample, gevent_self_deadlock *deadlock) {
    deadlock->holder_count = deadlock->frame_count = 0;
    deadlock->initializer = -1;
    if (!sample->self_deadlock) return false;
    search search = {hub, sample->self_deadlock, deadlock};
    // The thread will never run again, so this thread can read its hub.
    examine_parked(&hub->main, &search);
    gevent_hub_for_each_stack(hub, examine_parked, &search);
    for (uint64_t position = hub->ready_head; position < hub->ready_tail; position++) {
        uintptr_t entry = hub->ready[position & hub->ready_mask];
        if (!entry || (entry & GEVENT_READY_TAGS) != GEVENT_READY_RESUME) continue;
        bool is_main = entry >= (uintptr_t)hub->main.stack_low && entry < (uintptr_t)hub->main.stack_high;
        const gevent_context *context = is_main ? &hub->main : gevent_hub_find_stack(hub, (const void *)entry);
        if (context) examine(&search, context, (const void *)entry);
    }
    return true;
}
