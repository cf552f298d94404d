#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#include "gevent_hub_stacks.h"
#include "gevent_once.h"
#include "gevent_sanitizers.h"
#include "gevent_switch.h"
#include "gevent_switching.h"

// A ready context is represented by its stack pointer; the state that is switched with it is stored at that address. So
// a yield touches the two stacks, the hub with its ring, and the thread's words, but no context and no Swift object.

#if GEVENT_ASAN || GEVENT_TSAN
/// Returns the context to which a stack pointer belongs, as the sanitizers require.
static gevent_context *context_of(gevent_hub *hub, void *stack_pointer) {
    char *low = hub->root_mapping;
    if ((char *)stack_pointer >= low && (char *)stack_pointer < low + hub->root_mapping_size) return &hub->root;
    gevent_context *context = gevent_hub_find_stack(hub, stack_pointer);
    return context ? context : &hub->main;
}
#endif

/// Stores the running stack's pointer to `*save` and continues on `load`; all stack changes happen here. Inlined, so
/// that a caller that ends with it makes a tail call and needs no frame.
SWITCHES __attribute__((always_inline)) static inline bool switch_stacks(
    gevent_hub *hub, void **save, void *load, bool has_ended) {
    (void)has_ended;
#if GEVENT_ASAN || GEVENT_TSAN
    gevent_context *self = hub->current, *to = context_of(hub, load);
    (void)self;
#endif
#if GEVENT_ASAN
    // The fake frames of a stack that is never resumed are released.
    __sanitizer_start_switch_fiber(
        has_ended ? NULL : &self->asan_fake_stack, to->stack_low, (size_t)(to->stack_high - to->stack_low));
#endif
#if GEVENT_TSAN
    __tsan_switch_to_fiber(to->tsan_fiber, 0);
#endif
#if GEVENT_ASAN
    gevent_swap_stacks(save, load, hub);
    __sanitizer_finish_switch_fiber(self->asan_fake_stack, NULL, NULL);
    return true;
#else
    return gevent_swap_stacks(save, load, hub);
#endif
}

/// Switches stacks, and lets functions of the Swift runtime swap the access list. For when the head of that list was
/// not found.
SWITCHES __attribute__((noinline)) static void gevent_switch_by_runtime(
    gevent_hub *hub, void **save, void *load, bool has_ended) {
    void *access_state[2] = {NULL, NULL};
    swift_task_exitThreadLocalContext(access_state);
    switch_stacks(hub, save, load, has_ended);
    swift_task_enterThreadLocalContext(access_state);
}

/// Notifies the switch watcher, on the running stack.
SWITCHES static void gevent_notify_watcher(gevent_hub *hub, void *load, bool has_ended) {
    int error = errno;
    uint64_t ready_tail = hub->ready_tail;
    hub->watch_switch(hub->owner, hub->current, gevent_frame_context(load), gevent_frame_is_first(load), has_ended);
    if (hub->ready_tail != ready_tail) {
        // The current context may already have a slot in the queue, and growing the queue would move that slot.
        fputs("gevent: a switch hook made a greenlet ready; it may only look\n", stderr);
        abort();
    }
    errno = error;
}

/// Whether C++ exceptions are in flight: a catch block, or a destructor during unwinding, called something that parks.
static inline bool carries_exceptions(const gevent_hub *hub) {
    return __builtin_expect(((uintptr_t)hub->cxx_exceptions->caught | hub->cxx_exceptions->uncaught) != 0, 0);
}

SWITCHES __attribute__((noinline)) static void gevent_switch_slowly(
    gevent_hub *hub, void **save, void *load, bool has_ended) {
    if (hub->watch_switch) gevent_notify_watcher(hub, load, has_ended);
    gevent_cxx_exceptions exceptions = *hub->cxx_exceptions;
    *hub->cxx_exceptions = (gevent_cxx_exceptions){0};
    if (hub->calls_runtime_for_access)
        gevent_switch_by_runtime(hub, save, load, has_ended);
    else
        switch_stacks(hub, save, load, has_ended);
    *hub->cxx_exceptions = exceptions;
}

SWITCHES __attribute__((noinline)) void gevent_switch_to(gevent_hub *hub, void **save, void *load, bool has_ended) {
    if (__builtin_expect(hub->has_slow_switches, 0) || carries_exceptions(hub))
        gevent_switch_slowly(hub, save, load, has_ended);
    else
        switch_stacks(hub, save, load, has_ended);
}

void gevent_hub_watch_switches(gevent_hub *hub, gevent_switch_watcher watcher) {
    // While slow_path_reasons is not zero, every yield goes through gevent_switch_to.
    hub->slow_path_reasons += (watcher != NULL) - (hub->watch_switch != NULL);
    hub->watch_switch = watcher;
    hub->has_slow_switches = watcher != NULL || hub->calls_runtime_for_access;
}

/// Clears the words for a greenlet that begins where another has ended: it starts with the state of a new stack.
static void clear_words(gevent_hub *hub) {
    *hub->access_head = NULL;
    hub->task_words[0] = hub->task_words[1] = hub->task_words[2] = NULL;
    *hub->cxx_exceptions = (gevent_cxx_exceptions){0};
    *hub->errno_location = 0;
}

static void greenlet_entry(void *argument);

// With many entries ready, the data of those that run soon is prefetched. The distances were measured. Slots past the
// tail hold stale pointers; prefetching them is harmless.

/// Prefetches the greenlet object of an upcoming start, which has two cache lines.
__attribute__((always_inline)) static inline void prefetch_start(const gevent_hub *hub) {
    const char *greenlet = (const char *)hub->ready[(hub->ready_head + 4) & hub->ready_mask];
    __builtin_prefetch(greenlet, 1);
    __builtin_prefetch(greenlet + 64, 1);
}

/// Prefetches a suspended greenlet in dependency order: frames, context, object.
__attribute__((always_inline)) static inline void prefetch_suspended(const gevent_hub *hub) {
    enum { FRAMES = 12, CONTEXT = 8, OWNER = 4 };
    uint64_t head = hub->ready_head, mask = hub->ready_mask;
    if (__builtin_expect(hub->ready_tail - head <= FRAMES, 1)) return;
    uintptr_t entry = hub->ready[(head + FRAMES) & mask];
    for (int line = 0; line < 10; line++) __builtin_prefetch((const char *)entry + 64 * line, 1);
    entry = hub->ready[(head + CONTEXT) & mask];
    if ((entry & GEVENT_READY_TAGS) == GEVENT_READY_RESUME) {
        const char *context = (const char *)gevent_frame_context((void *)entry);
        for (int line = -2; line < 3; line++) __builtin_prefetch(context + 64 * line, 1);
    }
    entry = hub->ready[(head + OWNER) & mask];
    if ((entry & GEVENT_READY_TAGS) == GEVENT_READY_RESUME) {
        const char *owner = (const char *)gevent_frame_context((void *)entry)->owner;
        __builtin_prefetch(owner, 1);
        __builtin_prefetch(owner + 64, 1);
    }
}

/// Assigns a stack to a greenlet that has not started. Returns the stack pointer that starts it; null without a stack.
__attribute__((always_inline)) static inline void *prepare_start_on(
    gevent_hub *hub, void *greenlet, gevent_context *context) {
    if (__builtin_expect(context == NULL, 0)) return NULL;
    if (++hub->live_stacks > hub->peak_live_stacks) hub->peak_live_stacks = hub->live_stacks;
    context->owner = greenlet;
    context->hub = hub;
#if GEVENT_ASAN
    context->asan_fake_stack = NULL;
#endif
#if GEVENT_TSAN
    if (!context->tsan_fiber) context->tsan_fiber = __tsan_create_fiber(0);
#endif
    return gevent_first_frame(context->stack_high, greenlet_entry, context);
}

static void *prepare_start(gevent_hub *hub, void *greenlet) {
    return prepare_start_on(hub, greenlet, gevent_stacks_take(&hub->stacks));
}

/// Like `prepare_start`, with a stack of the size that the greenlet asks for.
__attribute__((noinline)) static void *prepare_sized_start(gevent_hub *hub, void *greenlet) {
    return prepare_start_on(hub, greenlet, gevent_hub_take_stack(hub, hub->functions.stack_class(greenlet)));
}

void *gevent_prepare_start(gevent_hub *hub, void *greenlet, unsigned tag) {
    return tag == GEVENT_READY_START ? prepare_start(hub, greenlet) : prepare_sized_start(hub, greenlet);
}

/// Whether the greenlet in a ready queue entry can begin on the stack of one that has ended: both have the same size.
static inline bool can_start_on(const gevent_hub *hub, const gevent_context *context, uintptr_t entry) {
    unsigned tag = entry & GEVENT_READY_TAGS;
    if (tag == GEVENT_READY_START) return context->stack_class == 0;
    if (tag != GEVENT_READY_START_SIZED || context->stack_class == 0) return false;
    return hub->functions.stack_class((void *)(entry & ~(uintptr_t)GEVENT_READY_TAGS)) == context->stack_class;
}

/// Takes the next entry. Returns its stack pointer, or the hub's if the hub must handle the entry.
__attribute__((noinline)) static void *take_next(gevent_hub *hub) {
    if (hub->ready_head < hub->ready_limit && hub->ready_head != hub->ready_tail) {
        uintptr_t entry = hub->ready[hub->ready_head & hub->ready_mask];
        void *load = NULL;
        if ((entry & GEVENT_READY_TAGS) == GEVENT_READY_RESUME)
            load = (void *)entry;
        else if ((entry & GEVENT_READY_TAGS) == GEVENT_READY_START)
            load = prepare_start(hub, (void *)(entry & ~(uintptr_t)GEVENT_READY_TAGS));
        else if ((entry & GEVENT_READY_TAGS) == GEVENT_READY_START_SIZED)
            load = prepare_sized_start(hub, (void *)(entry & ~(uintptr_t)GEVENT_READY_TAGS));
        if (load) {
            prefetch_suspended(hub);
            hub->ready_head++;
            return load;
        }
    }
    hub->root_switch_count++;
    hub->slow_path_reasons++;
    return hub->root.stack_pointer;
}

SWITCHES __attribute__((noinline)) void gevent_park(gevent_hub *hub) {
    gevent_context *self = hub->current;
    void *load = take_next(hub);
    gevent_switch_to(hub, &self->stack_pointer, load, false);
}

SWITCHES __attribute__((noinline)) static bool gevent_yield_slowly(gevent_hub *hub) {
    if (!hub || gevent_pending_flags(hub) != GEVENT_PENDING_NONE) return false;
    uint64_t position = hub->ready_tail;
    // Reserves a slot in the queue; it is filled when the stack pointer is known.
    gevent_ready_push(hub, NULL, GEVENT_READY_RESUME);
    if (hub->ready_head == position && hub->ready_head < hub->ready_limit) {
        hub->ready_head++;  // no other context is ready
        return true;
    }
    void *load = take_next(hub);
    gevent_switch_to(hub, (void **)&hub->ready[position & hub->ready_mask], load, false);
    return true;
}

// All calls here are tail calls, so no register is saved before the assembly runs.
SWITCHES __attribute__((noinline)) bool gevent_yield(void) {
    gevent_hub *hub = gevent_this_thread_hub;
    if (__builtin_expect(!hub, 0)) return gevent_yield_slowly(hub);
    WARN_IN_INITIALIZER(hub->current);
    uint64_t head = hub->ready_head, tail = hub->ready_tail, mask = hub->ready_mask;
    uintptr_t *ring = hub->ready, entry = ring[head & mask];
    bool is_fast_path = head != tail && head < hub->ready_limit && tail - head <= mask &&
                        (entry & GEVENT_READY_TAGS) == GEVENT_READY_RESUME && hub->slow_path_reasons == 0 &&
                        !carries_exceptions(hub);
    if (__builtin_expect(!is_fast_path, 0)) return gevent_yield_slowly(hub);
    // With many ready, prefetches one that runs soon. The distance was measured: a smaller one costs 15 % more at
    // 100,000 ready, and a larger one gains nothing at 1,000.
    uintptr_t soon = ring[(head + 6) & mask];
    __builtin_prefetch((void *)soon);
    __builtin_prefetch((char *)soon + 64);
    hub->ready_head = head + 1;
    hub->ready_tail = tail + 1;
    return switch_stacks(hub, (void **)&ring[tail & mask], (void *)entry, false);
}

/// Runs greenlets on one stack, one after another, as long as the next one to run has not started yet.
static void greenlet_entry(void *argument) {
    gevent_context *self = argument;
    gevent_hub *hub = self->hub;
#if GEVENT_ASAN
    __sanitizer_finish_switch_fiber(NULL, NULL, NULL);
#endif
    for (;;) {
        hub->functions.run_greenlet(self->owner, self);
        gevent_pending_reset(self);
        if (hub->ready_head == hub->ready_tail || hub->ready_head >= hub->ready_limit) break;
        uintptr_t entry = hub->ready[hub->ready_head & hub->ready_mask];
        if (!can_start_on(hub, self, entry)) break;
        // The next greenlet begins where this one began, without a switch.
        prefetch_start(hub);
        hub->ready_head++;
        self->owner = (void *)(entry & ~(uintptr_t)GEVENT_READY_TAGS);
        clear_words(hub);
    }
    // Released while still in use: nothing else on this thread can take the stack before the switch.
    gevent_stacks_release(gevent_hub_stacks(hub, self->stack_class), self);
    hub->live_stacks--;
    gevent_switch_to(hub, &self->stack_pointer, take_next(hub), true);
    abort();
}

SWITCHES __attribute__((noinline)) void gevent_call_hub(gevent_hub *hub) {
    gevent_context *self = hub->current;
    hub->hub_caller = self;
    // Not counted as a switch: no other greenlet runs, and the monitor counts switches to detect that.
    hub->slow_path_reasons++;
    gevent_switch_to(hub, &self->stack_pointer, hub->root.stack_pointer, false);
}

SWITCHES __attribute__((noinline)) void gevent_return_from_hub_call(gevent_hub *hub) {
    gevent_context *caller = hub->hub_caller;
    hub->hub_caller = NULL;
    hub->slow_path_reasons--;
    gevent_switch_to(hub, &hub->root.stack_pointer, caller->stack_pointer, false);
}

// In a forked child, ThreadSanitizer no longer knows that a switch orders the accesses of two fibers to the queue.
SWITCHES gevent_run_result gevent_run_ready(gevent_hub *hub) {
    for (;;) {
        if (hub->hub_caller) return GEVENT_RUN_HUB_CALL;
        if (hub->ready_head == hub->ready_tail) return GEVENT_RUN_DRAINED;
        if (hub->ready_head >= hub->ready_limit) return GEVENT_RUN_GRANT_USED;
        uintptr_t entry = hub->ready[hub->ready_head & hub->ready_mask];
        void *pointer = (void *)(entry & ~(uintptr_t)GEVENT_READY_TAGS), *load = pointer;
        if ((entry & GEVENT_READY_TAGS) == GEVENT_READY_CALLBACK) return GEVENT_RUN_CALLBACK;
        if ((entry & GEVENT_READY_TAGS) == GEVENT_READY_START) load = prepare_start(hub, pointer);
        if ((entry & GEVENT_READY_TAGS) == GEVENT_READY_START_SIZED) load = prepare_sized_start(hub, pointer);
        if (!load) return GEVENT_RUN_NO_STACK;
        hub->ready_head++;
        hub->slow_path_reasons--;
        gevent_switch_to(hub, &hub->root.stack_pointer, load, false);
    }
}
