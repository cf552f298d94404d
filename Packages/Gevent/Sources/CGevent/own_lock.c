#include "gevent_hub.h"
#include "gevent_monitor_memory.h"
#include "gevent_once.h"
#include "gevent_sample.h"

// A thread that waits for a lock which it holds itself never goes on. Between greenlets that takes two: one parks with
// the lock held, another wants it. The lock of a global's initialiser is the commonest, since nobody sees it.

typedef struct search {
    const gevent_hub *hub;
    uintptr_t address;
    gevent_own_lock *lock;
} search;

/// Whether the stack of a suspended context refers to the lock. The one that took it does: to release the lock, it must
/// still know where that is. Others may too, if they merely know of it.
static bool mentions_lock(const search *search, uintptr_t from, uintptr_t to) {
    uintptr_t words[512];
    while (from < to) {
        size_t size = to - from < sizeof words ? to - from : sizeof words;
        size_t count = gevent_copy_memory(words, from, size) / sizeof *words;
        for (size_t i = 0; i < count; i++) {
            // In Swift's once token the lock is the second half.
            if (words[i] == search->address || words[i] == search->address - sizeof(uint32_t)) return true;
        }
        if (count == 0) return false;
        from += count * sizeof *words;
    }
    return false;
}

static void look_at(search *search, const gevent_context *context, const void *stack_pointer) {
    gevent_own_lock *lock = search->lock;
    if (context == search->hub->current || !stack_pointer || lock->initializer >= 0) return;
    if (!mentions_lock(search, (uintptr_t)stack_pointer, (uintptr_t)context->stack_high)) return;
    size_t count = gevent_frames_at(stack_pointer, context->stack_high, lock->frames, GEVENT_OWN_LOCK_FRAMES);
    lock->initializer = gevent_once_find(lock->frames, count);
    if (lock->initializer >= 0) {
        // There is no doubt about this one.
        lock->holder_count = 0;
        lock->frame_count = count;
    }
    if (lock->holder_count == GEVENT_OWN_LOCK_HOLDERS) return;
    gevent_identity *holder = &lock->holders[lock->holder_count++];
    gevent_describe_context(search->hub, context, holder);
    gevent_copy_memory(&holder->isa, (uintptr_t)holder->owner, sizeof holder->isa);
}

static void look_at_parked(gevent_context *context, void *argument) {
    if (context->wait_state == GEVENT_WAIT_PARKED) look_at(argument, context, context->stack_pointer);
}

bool gevent_find_own_lock(gevent_hub *hub, const gevent_sample *sample, gevent_own_lock *lock) {
    lock->holder_count = lock->frame_count = 0;
    lock->initializer = -1;
    if (!sample->own_lock) return false;
    search search = {hub, sample->own_lock, lock};
    // The thread stands still for good, so its hub can be walked through.
    look_at_parked(&hub->main, &search);
    gevent_hub_for_each_stack(hub, look_at_parked, &search);
    for (uint64_t place = hub->ready_head; place < hub->ready_tail; place++) {
        uintptr_t entry = hub->ready[place & hub->ready_mask];
        if (!entry || (entry & GEVENT_READY_TAGS) != GEVENT_READY_RESUME) continue;
        bool is_main = entry >= (uintptr_t)hub->main.stack_low && entry < (uintptr_t)hub->main.stack_high;
        const gevent_context *context = is_main ? &hub->main : gevent_hub_find_stack(hub, (const void *)entry);
        if (context) look_at(&search, context, (const void *)entry);
    }
    return true;
}
