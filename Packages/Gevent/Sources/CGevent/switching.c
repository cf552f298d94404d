#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#include "gevent_hub_stacks.h"
#include "gevent_once.h"
#include "gevent_sanitizers.h"
#include "gevent_switch.h"
#include "gevent_switching.h"

// A ready context is its stack pointer, and everything that travels with it lies at that address. So a yield touches
// the stacks of both sides and the hub, and nothing else.

#if GEVENT_ASAN || GEVENT_TSAN
/// The sanitizers want to know whose stack is switched to; the stack pointer tells.
static gevent_context *context_of(gevent_hub *hub, void *stack_pointer) {
    char *low = hub->root_mapping;
    if ((char *)stack_pointer >= low && (char *)stack_pointer < low + hub->root_mapping_size) return &hub->root;
    gevent_context *context = gevent_hub_find_stack(hub, stack_pointer);
    return context ? context : &hub->main;
}
#endif

/// The one place where stacks change: stores the running stack's pointer to `*save` and continues on `load`. Inlined
/// where nothing is left to do afterwards, so that it is a jump and no frame is built for it.
SWITCHES __attribute__((always_inline)) static inline bool switch_stacks(
    gevent_hub *hub, void **save, void *load, bool is_over) {
    (void)is_over;
#if GEVENT_ASAN || GEVENT_TSAN
    gevent_context *self = hub->current, *to = context_of(hub, load);
    (void)self;
#endif
#if GEVENT_ASAN
    // A stack that is never resumed gives up its fake frames.
    __sanitizer_start_switch_fiber(
        is_over ? NULL : &self->asan_fake_stack, to->stack_low, (size_t)(to->stack_high - to->stack_low));
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

/// The same by the runtime's own calls, where the head of the access list was not found.
SWITCHES __attribute__((noinline)) static void switch_by_runtime(
    gevent_hub *hub, void **save, void *load, bool is_over) {
    void *access_state[2] = {NULL, NULL};
    swift_task_exitThreadLocalContext(access_state);
    switch_stacks(hub, save, load, is_over);
    swift_task_enterThreadLocalContext(access_state);
}

/// Tells whoever watches switches, on the stack that is left.
SWITCHES static void notify_watcher(gevent_hub *hub, void *load, bool is_over) {
    int error = errno;
    uint64_t ready_tail = hub->ready_tail;
    hub->watch_switch(hub->owner, hub->current, gevent_frame_context(load), gevent_frame_is_first(load), is_over);
    if (hub->ready_tail != ready_tail) {
        // Whoever leaves has taken its place in the queue already, and a queue that grew would move it.
        fputs("gevent: a switch hook made a greenlet ready; it may only look\n", stderr);
        abort();
    }
    errno = error;
}

/// Whether C++ exceptions are in flight: a catch block called something that parks, or a destructor during unwinding.
static inline bool carries_exceptions(const gevent_hub *hub) {
    return __builtin_expect(((uintptr_t)hub->cxx_exceptions->caught | hub->cxx_exceptions->uncaught) != 0, 0);
}

SWITCHES __attribute__((noinline)) static void leave_slowly(gevent_hub *hub, void **save, void *load, bool is_over) {
    if (hub->watch_switch) notify_watcher(hub, load, is_over);
    gevent_cxx_exceptions exceptions = *hub->cxx_exceptions;
    *hub->cxx_exceptions = (gevent_cxx_exceptions){0};
    if (hub->calls_runtime_for_access)
        switch_by_runtime(hub, save, load, is_over);
    else
        switch_stacks(hub, save, load, is_over);
    *hub->cxx_exceptions = exceptions;
}

SWITCHES __attribute__((noinline)) void gevent_leave_for(gevent_hub *hub, void **save, void *load, bool is_over) {
    if (__builtin_expect(hub->leaves_slowly, 0) || carries_exceptions(hub))
        leave_slowly(hub, save, load, is_over);
    else
        switch_stacks(hub, save, load, is_over);
}

void gevent_hub_watch_switches(gevent_hub *hub, gevent_switch_watcher watcher) {
    // As long as slow_path_reasons is not zero, every yield takes the way through leave_for.
    hub->slow_path_reasons += (watcher != NULL) - (hub->watch_switch != NULL);
    hub->watch_switch = watcher;
    hub->leaves_slowly = watcher != NULL || hub->calls_runtime_for_access;
}

/// A greenlet that begins where another has ended finds what it would find on a fresh stack: nothing of anybody else's.
static void clear_words(gevent_hub *hub) {
    *hub->access_head = NULL;
    hub->task_words[0] = hub->task_words[1] = hub->task_words[2] = NULL;
    *hub->cxx_exceptions = (gevent_cxx_exceptions){0};
    *hub->errno_location = 0;
}

static void greenlet_entry(void *argument);

// With many ready, what those that run soon will touch is on its way into the cache by then. The distances were
// measured; what lies at the places of entries that are not there yet is an address of the past, and harmless to
// prefetch.

/// In a row of starts: the object, which has two lines.
__attribute__((always_inline)) static inline void prefetch_start(const gevent_hub *hub) {
    const char *greenlet = (const char *)hub->ready[(hub->ready_head + 4) & hub->ready_mask];
    __builtin_prefetch(greenlet, 1);
    __builtin_prefetch(greenlet + 64, 1);
}

/// Of a stopped one first its frames, then its context, which they name, then the greenlet, which that names.
__attribute__((always_inline)) static inline void prefetch_stopped(const gevent_hub *hub) {
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

/// Gives a greenlet that has not run yet a stack, and returns where to continue for it to start; null without a stack.
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

/// The same for a greenlet that wants a stack of another size.
__attribute__((noinline)) static void *prepare_sized_start(gevent_hub *hub, void *greenlet) {
    return prepare_start_on(hub, greenlet, gevent_hub_take_stack(hub, hub->functions.stack_class(greenlet)));
}

void *gevent_prepare_start(gevent_hub *hub, void *greenlet, unsigned tag) {
    return tag == GEVENT_READY_START ? prepare_start(hub, greenlet) : prepare_sized_start(hub, greenlet);
}

/// Whether the greenlet in a ready queue entry begins where another one has ended, on a stack of the same size.
static inline bool begins_on(const gevent_hub *hub, const gevent_context *context, uintptr_t entry) {
    unsigned tag = entry & GEVENT_READY_TAGS;
    if (tag == GEVENT_READY_START) return context->stack_class == 0;
    if (tag != GEVENT_READY_START_SIZED || context->stack_class == 0) return false;
    return hub->functions.stack_class((void *)(entry & ~(uintptr_t)GEVENT_READY_TAGS)) == context->stack_class;
}

/// Takes the next entry and returns where to continue: there, or in the hub if it has to act.
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
            prefetch_stopped(hub);
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
    gevent_leave_for(hub, &self->stack_pointer, load, false);
}

SWITCHES __attribute__((noinline)) static bool yield_slowly(gevent_hub *hub) {
    if (!hub || gevent_pending_flags(hub) != GEVENT_PENDING_NONE) return false;
    uint64_t place = hub->ready_tail;
    // Its place in the queue is kept for it, and filled when its stack pointer is known.
    gevent_ready_push(hub, NULL, GEVENT_READY_RESUME);
    if (hub->ready_head == place && hub->ready_head < hub->ready_limit) {
        hub->ready_head++;  // nobody else is ready
        return true;
    }
    void *load = take_next(hub);
    gevent_leave_for(hub, (void **)&hub->ready[place & hub->ready_mask], load, false);
    return true;
}

// Written so that nothing is saved before the jump into the assembly: every call on the way is itself a jump.
SWITCHES __attribute__((noinline)) bool gevent_yield(void) {
    gevent_hub *hub = gevent_this_thread_hub;
    if (__builtin_expect(!hub, 0)) return yield_slowly(hub);
    WARN_IN_INITIALIZER(hub->current);
    uint64_t head = hub->ready_head, tail = hub->ready_tail, mask = hub->ready_mask;
    uintptr_t *ring = hub->ready, entry = ring[head & mask];
    bool is_usual = head != tail && head < hub->ready_limit && tail - head <= mask &&
                    (entry & GEVENT_READY_TAGS) == GEVENT_READY_RESUME && hub->slow_path_reasons == 0 &&
                    !carries_exceptions(hub);
    if (__builtin_expect(!is_usual, 0)) return yield_slowly(hub);
    // With many ready, one that runs soon is on its way into the cache while this one is switched to. Six ahead: nearer
    // is too late at 100,000 ready (15 % more), farther is lost again at 1,000.
    uintptr_t soon = ring[(head + 6) & mask];
    __builtin_prefetch((void *)soon);
    __builtin_prefetch((char *)soon + 64);
    hub->ready_head = head + 1;
    hub->ready_tail = tail + 1;
    return switch_stacks(hub, (void **)&ring[tail & mask], (void *)entry, false);
}

/// The life of a stack: one greenlet after another, as long as the next one to run is a fresh one.
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
        if (!begins_on(hub, self, entry)) break;
        // No switch at all: the next greenlet begins where this one began.
        prefetch_start(hub);
        hub->ready_head++;
        self->owner = (void *)(entry & ~(uintptr_t)GEVENT_READY_TAGS);
        clear_words(hub);
    }
    // Given back while still standing on it: nobody else on this thread can take it before the switch.
    gevent_stacks_release(gevent_hub_stacks(hub, self->stack_class), self);
    hub->live_stacks--;
    gevent_leave_for(hub, &self->stack_pointer, take_next(hub), true);
    abort();
}

SWITCHES __attribute__((noinline)) void gevent_visit_hub(gevent_hub *hub) {
    gevent_context *self = hub->current;
    hub->visitor = self;
    // Not counted as a switch: no other greenlet gets a turn, which is what the monitor looks for.
    hub->slow_path_reasons++;
    gevent_leave_for(hub, &self->stack_pointer, hub->root.stack_pointer, false);
}

SWITCHES __attribute__((noinline)) void gevent_end_visit(gevent_hub *hub) {
    gevent_context *visitor = hub->visitor;
    hub->visitor = NULL;
    hub->slow_path_reasons--;
    gevent_leave_for(hub, &hub->root.stack_pointer, visitor->stack_pointer, false);
}

gevent_run_result gevent_run_ready(gevent_hub *hub) {
    for (;;) {
        if (hub->visitor) return GEVENT_RUN_VISIT;
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
        gevent_leave_for(hub, &hub->root.stack_pointer, load, false);
    }
}
