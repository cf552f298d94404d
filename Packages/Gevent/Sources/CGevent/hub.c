#define _GNU_SOURCE
#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "gevent_hub.h"
#include "gevent_once.h"
#include "gevent_overflow.h"
#include "gevent_sanitizers.h"
#include "gevent_switch.h"

__thread gevent_hub *gevent_this_thread_hub = NULL;

// Exported by libswiftCore for exactly this purpose; two words of state per flow of control. Weak, so that the C part
// can be tested alone.
extern void swift_task_enterThreadLocalContext(void *state) __attribute__((weak));
extern void swift_task_exitThreadLocalContext(void *state) __attribute__((weak));

// The C++ runtime's. Weak, since no product links that runtime: where it is not, no exception is in flight.
extern gevent_cxx_exceptions *__cxa_get_globals(void) __attribute__((weak));

// MARK: switching
//
// A ready context is its stack pointer, and everything that travels with it lies at that address. So a yield touches
// the stacks of both sides and the hub, and nothing else.

#if GEVENT_TSAN
#define SWITCHES __attribute__((no_sanitize("thread")))
#else
#define SWITCHES
#endif

#if GEVENT_ASAN || GEVENT_TSAN
/// The sanitizers want to know whose stack is switched to; the stack pointer tells.
static gevent_context *context_of(gevent_hub *hub, void *stack_pointer) {
    char *low = hub->root_mapping;
    if ((char *)stack_pointer >= low && (char *)stack_pointer < low + hub->root_mapping_size) return &hub->root;
    gevent_context *context = gevent_hub_find_stack(hub, stack_pointer);
    return context ? context : &hub->main;
}
#endif

#ifdef DEBUG
#define WARN_IN_INITIALIZER(context) gevent_once_warn(context)
#else
#define WARN_IN_INITIALIZER(context)
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
SWITCHES static void tell_watcher(gevent_hub *hub, void *load, bool is_over) {
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
    if (hub->watch_switch) tell_watcher(hub, load, is_over);
    gevent_cxx_exceptions exceptions = *hub->cxx_exceptions;
    *hub->cxx_exceptions = (gevent_cxx_exceptions){0};
    if (hub->calls_runtime_for_access)
        switch_by_runtime(hub, save, load, is_over);
    else
        switch_stacks(hub, save, load, is_over);
    *hub->cxx_exceptions = exceptions;
}

SWITCHES __attribute__((noinline)) static void leave_for(gevent_hub *hub, void **save, void *load, bool is_over) {
    if (__builtin_expect(hub->leaves_slowly, 0) || carries_exceptions(hub))
        leave_slowly(hub, save, load, is_over);
    else
        switch_stacks(hub, save, load, is_over);
}

void gevent_hub_watch_switches(gevent_hub *hub, gevent_switch_watcher watcher) {
    // As long as attention_count is not zero, every yield takes the way through leave_for.
    hub->attention_count += (watcher != NULL) - (hub->watch_switch != NULL);
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

static gevent_context *take_sized(gevent_hub *hub, uint8_t stack_class);

/// The same for a greenlet that wants a stack of another size.
__attribute__((noinline)) static void *prepare_sized_start(gevent_hub *hub, void *greenlet) {
    return prepare_start_on(hub, greenlet, take_sized(hub, hub->functions.stack_class(greenlet)));
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
    hub->attention_count++;
    return hub->root.stack_pointer;
}

SWITCHES __attribute__((noinline)) void gevent_park(gevent_hub *hub) {
    gevent_context *self = hub->current;
    void *load = take_next(hub);
    leave_for(hub, &self->stack_pointer, load, false);
}

SWITCHES __attribute__((noinline)) static bool yield_slowly(gevent_hub *hub) {
    if (!hub || gevent_attention(hub) != GEVENT_ATTENTION_NONE) return false;
    uint64_t place = hub->ready_tail;
    // Its place in the queue is kept for it, and filled when its stack pointer is known.
    gevent_ready_push(hub, NULL, GEVENT_READY_RESUME);
    if (hub->ready_head == place && hub->ready_head < hub->ready_limit) {
        hub->ready_head++;  // nobody else is ready
        return true;
    }
    void *load = take_next(hub);
    leave_for(hub, (void **)&hub->ready[place & hub->ready_mask], load, false);
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
                    (entry & GEVENT_READY_TAGS) == GEVENT_READY_RESUME && hub->attention_count == 0 &&
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
        gevent_attention_reset(self);
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
    gevent_stacks_give_back(gevent_hub_stacks(hub, self->stack_class), self);
    hub->live_stacks--;
    leave_for(hub, &self->stack_pointer, take_next(hub), true);
    abort();
}

SWITCHES __attribute__((noinline)) void gevent_visit_hub(gevent_hub *hub) {
    gevent_context *self = hub->current;
    hub->visitor = self;
    // Not counted as a switch: no other greenlet gets a turn, which is what the monitor looks for.
    hub->attention_count++;
    leave_for(hub, &self->stack_pointer, hub->root.stack_pointer, false);
}

SWITCHES __attribute__((noinline)) void gevent_end_visit(gevent_hub *hub) {
    gevent_context *visitor = hub->visitor;
    hub->visitor = NULL;
    hub->attention_count--;
    leave_for(hub, &hub->root.stack_pointer, visitor->stack_pointer, false);
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
        hub->attention_count--;
        leave_for(hub, &hub->root.stack_pointer, load, false);
    }
}

static void root_entry(void *argument) {
    gevent_hub *hub = ((gevent_context *)argument)->hub;
#if GEVENT_ASAN
    __sanitizer_finish_switch_fiber(NULL, NULL, NULL);
#endif
    hub->functions.run_hub(hub->owner);
    hub->attention_count--;
    leave_for(hub, &hub->root.stack_pointer, hub->main.stack_pointer, true);
    abort();
}

// MARK: the ready queue

void gevent_ready_grow(gevent_hub *hub) {
    uint64_t capacity = hub->ready_mask + 1, larger = capacity * 2;
    uintptr_t *ring = malloc(larger * sizeof *ring);
    if (!ring) {
        fputs("gevent: out of memory for the ready queue\n", stderr);
        abort();
    }
    for (uint64_t i = hub->ready_head; i != hub->ready_tail; i++) ring[i & (larger - 1)] = hub->ready[i & hub->ready_mask];
    free(hub->ready);
    hub->ready = ring;
    hub->ready_mask = larger - 1;
}

void gevent_ready_move_to_front(gevent_hub *hub, uint64_t place) {
    uint64_t count = hub->ready_tail - place;
    if (count == 0 || place == hub->ready_head) return;
    while (hub->ready_mask + 1 - gevent_ready_count(hub) < count) gevent_ready_grow(hub);
    uint64_t head = hub->ready_head - count;
    for (uint64_t i = 0; i < count; i++)
        hub->ready[(head + i) & hub->ready_mask] = hub->ready[(place + i) & hub->ready_mask];
    hub->front_end = hub->ready_head;
    hub->moved_count += count;
    hub->ready_tail = place;
    hub->ready_head = head;
    gevent_ready_grant(hub, 0);
}

gevent_ready_entry gevent_ready_pop(gevent_hub *hub) {
    uintptr_t entry = hub->ready[hub->ready_head++ & hub->ready_mask];
    return (gevent_ready_entry){
        .pointer = (void *)(entry & ~(uintptr_t)GEVENT_READY_TAGS),
        .tag = (unsigned)(entry & GEVENT_READY_TAGS),
    };
}

// MARK: waits

/// Takes a parked context out of whatever it waits in.
static inline void unhook(gevent_hub *hub, gevent_context *context) {
    hub->parked_count--;
    gevent_node_unlink(&context->wait_link.node);
    gevent_timers_cancel(&hub->timers, &context->timer);
    if (context->wait_slot) {
        *context->wait_slot = NULL;
        context->wait_slot = NULL;
        hub->descriptor_waiters--;
    }
    if (__builtin_expect(context->wait_links != NULL, 0)) {
        gevent_links_withdraw(context->wait_links);
        context->wait_links = NULL;
    }
}

/// Ends the wait of a parked context: nothing else can any more.
static inline void finish_wait(gevent_context *context, uint8_t outcome) {
    context->wait_state = outcome;
    unhook(context->hub, context);
}

bool gevent_wait_end(gevent_context *context, uint8_t outcome) {
    if (context->wait_state != GEVENT_WAIT_PARKED) return false;
    finish_wait(context, outcome);
    gevent_ready_push(context->hub, context->stack_pointer, GEVENT_READY_RESUME);
    return true;
}

void gevent_wait_abandon(gevent_context *context) {
    if (context->wait_state == GEVENT_WAIT_PARKED) unhook(context->hub, context);
    context->wait_state = GEVENT_WAIT_NONE;
}

static inline gevent_context *begin_wait(gevent_hub *hub, uint8_t kind, const void *object) {
    gevent_context *self = hub->current;
    WARN_IN_INITIALIZER(self);
    self->wait_state = GEVENT_WAIT_PARKED;
    self->idle_state = GEVENT_IDLE_FRESH;
    hub->parked_count++;
    self->wait_kind = kind;
    self->wait_object = object;
    self->wait_since = hub->now;
    return self;
}

static inline uint8_t wait_outcome(gevent_context *self) {
    uint8_t outcome = self->wait_state;
    self->wait_state = GEVENT_WAIT_NONE;
    return outcome;
}

uint8_t gevent_wait(gevent_hub *hub, uint8_t kind, const void *object) {
    gevent_context *self = begin_wait(hub, kind, object);
    gevent_park(hub);
    return wait_outcome(self);
}

SWITCHES static uint8_t wait_while_on(gevent_hub *hub, gevent_context *self, void *load) {
    hub->handovers_left--;
    hub->handover_count++;
    leave_for(hub, &self->stack_pointer, load, false);
    return wait_outcome(self);
}

SWITCHES uint8_t gevent_wait_for_switch(
    gevent_hub *hub, uint8_t kind, const void *object, gevent_context *target, uint8_t outcome) {
    gevent_context *self = begin_wait(hub, kind, object);
    if (hub->handovers_left > 0) {
        finish_wait(target, outcome);
        return wait_while_on(hub, self, target->stack_pointer);
    }
    gevent_wait_end(target, outcome);
    gevent_park(hub);
    return wait_outcome(self);
}

SWITCHES uint8_t gevent_wait_for_start(
    gevent_hub *hub, uint8_t kind, const void *object, void *greenlet, unsigned tag) {
    gevent_context *self = begin_wait(hub, kind, object);
    void *load = NULL;
    if (hub->handovers_left > 0)
        load = tag == GEVENT_READY_START ? prepare_start(hub, greenlet) : prepare_sized_start(hub, greenlet);
    if (load) return wait_while_on(hub, self, load);
    gevent_ready_push(hub, greenlet, tag);
    gevent_park(hub);
    return wait_outcome(self);
}

union record {
    gevent_deferred deferred;
    gevent_family family;
    gevent_tree tree;
    gevent_locals locals;
    union record *next_free;
};

static void *allocated(size_t size) {
    void *memory = malloc(size);
    if (!memory) {
        fputs("gevent: out of memory for a record\n", stderr);
        abort();
    }
    return memory;
}

static union record *take_record(gevent_hub *hub) {
    union record *record = hub->free_records;
    if (record) {
        hub->free_records = record->next_free;
        return record;
    }
    return allocated(sizeof *record);
}

void *gevent_record_take(gevent_hub *hub) { return take_record(hub); }

gevent_deferred *gevent_deferred_take(gevent_hub *hub) {
    gevent_deferred *deferred = &take_record(hub)->deferred;
    *deferred = (gevent_deferred){0};
    return deferred;
}

gevent_links *gevent_links_take(gevent_hub *hub) {
    gevent_links *links = hub->free_links;
    if (links)
        hub->free_links = (gevent_links *)links->list.next;
    else
        links = allocated(sizeof *links);
    gevent_list_init(&links->list);
    return links;
}

void gevent_links_give_back(gevent_hub *hub, gevent_links *links) {
    if (!hub) {
        free(links);
        return;
    }
    links->list.next = (gevent_node *)hub->free_links;
    hub->free_links = links;
}

void gevent_record_give_back(gevent_hub *hub, void *memory) {
    union record *record = memory;
    if (!hub) {
        free(record);
        return;
    }
    record->next_free = hub->free_records;
    hub->free_records = record;
}

gevent_timer *gevent_fire_timers(gevent_hub *hub, int64_t now) {
    gevent_timer *timer;
    while ((timer = gevent_timers_pop_due(&hub->timers, now))) {
        if (timer->kind > GEVENT_TIMER_EXPIRE) return timer;
        gevent_wait_end(timer->payload, timer->kind == GEVENT_TIMER_WAKE ? GEVENT_WAIT_WOKEN : GEVENT_WAIT_EXPIRED);
    }
    return NULL;
}

// MARK: stacks of all sizes

uint8_t gevent_hub_stack_class(const gevent_hub *hub, size_t bytes) {
    uint8_t stack_class = 1;
    while (gevent_stack_class_size(stack_class) < bytes) stack_class++;
    return gevent_stack_class_size(stack_class) == hub->stack_size ? 0 : stack_class;
}

gevent_stacks *gevent_hub_stacks(gevent_hub *hub, uint8_t stack_class) {
    return stack_class == 0 ? &hub->stacks : hub->sized_stacks[stack_class - 1];
}

static const gevent_stacks *stacks_of_class(const gevent_hub *hub, uint8_t stack_class) {
    return stack_class == 0 ? &hub->stacks : hub->sized_stacks[stack_class - 1];
}

static size_t room_of(const gevent_stacks *stacks) { return stacks->slot_size - stacks->guard_size; }

static gevent_context *take_sized(gevent_hub *hub, uint8_t stack_class) {
    gevent_stacks *stacks = gevent_hub_stacks(hub, stack_class);
    if (!stacks) {
        stacks = malloc(sizeof *stacks);
        if (!stacks) return NULL;
        gevent_stacks_init(stacks, gevent_stack_class_size(stack_class), stack_class);
        hub->sized_stacks[stack_class - 1] = stacks;
        if (stack_class > hub->largest_class) hub->largest_class = stack_class;
        if (room_of(stacks) < hub->stack_room) hub->stack_room = room_of(stacks);
    }
    if (hub->stacks.limit == SIZE_MAX) return gevent_stacks_take(stacks);
    // The limit is on all together: what a stack of this size takes, one of the default size cannot.
    size_t count = gevent_stacks_slot_count(stacks), others = gevent_stacks_slot_count(&hub->stacks);
    stacks->limit = count + (hub->stacks.limit > others ? hub->stacks.limit - others : 0);
    gevent_context *context = gevent_stacks_take(stacks);
    hub->stacks.limit -= gevent_stacks_slot_count(stacks) - count;
    return context;
}

const gevent_stacks *gevent_hub_stacks_around(const gevent_hub *hub, const void *address) {
    for (uint8_t class = 0; class <= hub->largest_class; class++) {
        const gevent_stacks *stacks = stacks_of_class(hub, class);
        if (stacks && gevent_stacks_low(stacks, address)) return stacks;
    }
    return NULL;
}

gevent_context *gevent_hub_find_stack(const gevent_hub *hub, const void *address) {
    const gevent_stacks *stacks = gevent_hub_stacks_around(hub, address);
    return stacks ? gevent_stacks_find(stacks, address) : NULL;
}

void gevent_hub_for_each_stack(gevent_hub *hub, void (*visit)(gevent_context *, void *), void *argument) {
    for (uint8_t class = 0; class <= hub->largest_class; class++)
        if (gevent_hub_stacks(hub, class)) gevent_stacks_for_each(gevent_hub_stacks(hub, class), visit, argument);
}

size_t gevent_hub_stack_count(const gevent_hub *hub) {
    size_t count = 0;
    for (uint8_t class = 0; class <= hub->largest_class; class++)
        if (stacks_of_class(hub, class)) count += gevent_stacks_slot_count(stacks_of_class(hub, class));
    return count;
}

size_t gevent_hub_idle_stacks(const gevent_hub *hub) {
    size_t count = 0;
    for (uint8_t class = 0; class <= hub->largest_class; class++)
        if (stacks_of_class(hub, class)) count += stacks_of_class(hub, class)->free_count;
    return count;
}

size_t gevent_hub_trim_stacks(gevent_hub *hub, size_t keep, size_t most) {
    size_t trimmed = 0;
    for (uint8_t class = 0; class <= hub->largest_class && trimmed < most; class++) {
        gevent_stacks *stacks = gevent_hub_stacks(hub, class);
        if (!stacks || stacks->free_count <= keep) continue;
        size_t live = gevent_stacks_live_count(stacks);
        trimmed += gevent_stacks_trim(stacks, live > keep ? live : keep, most - trimmed);
    }
    return trimmed;
}

int64_t gevent_hub_shed_stacks(gevent_hub *hub, int64_t now) {
    enum { PERIOD = 1000000000, STACKS_A_PERIOD = 10000 };
    size_t count = gevent_hub_stack_count(hub);
    if (count == 0) return INT64_MAX;
    if (!hub->is_shedding) {
        // Nothing has run since, so nothing has become idle.
        if (!hub->sheds_again && gevent_switch_count(hub) == hub->shed_switch_count) return INT64_MAX;
        if (now < hub->shed_due) return hub->shed_due;
        hub->is_shedding = true;
        hub->sheds_again = false;
        hub->shed_switch_count = gevent_switch_count(hub);
        hub->shed_next = 0;
        hub->shed_class = 0;
    }
    for (; hub->shed_class <= hub->largest_class; hub->shed_class++, hub->shed_next = 0) {
        gevent_stacks *stacks = gevent_hub_stacks(hub, hub->shed_class);
        if (stacks && !gevent_stacks_shed(stacks, &hub->shed_next, &hub->sheds_again)) return now;
    }
    hub->is_shedding = false;
    hub->shed_due = now + PERIOD * (int64_t)(1 + count / STACKS_A_PERIOD);
    return hub->sheds_again ? hub->shed_due : INT64_MAX;
}

__attribute__((noinline)) const gevent_spawn_site *gevent_hub_capture_spawn_site(
    gevent_hub *hub, const gevent_spawn_site *spawner) {
    gevent_context *self = hub->current;
    return gevent_spawn_site_capture(&hub->spawn_sites, spawner, self->stack_high);
}

// MARK: life of a hub

/// The bounds of the calling thread's own stack.
static void find_thread_stack(gevent_context *context) {
    pthread_attr_t attributes;
    if (pthread_getattr_np(pthread_self(), &attributes) != 0) return;
    void *low = NULL;
    size_t size = 0;
    if (pthread_attr_getstack(&attributes, &low, &size) == 0) {
        context->stack_low = low;
        context->stack_high = (char *)low + size;
    }
    pthread_attr_destroy(&attributes);
}

static bool make_root(gevent_hub *hub) {
    // Hub callbacks, raw links and error reports run here. There is one, so a guard as large as itself costs nothing.
    enum { ROOT_STACK = 1 << 20 };
    size_t guard = ROOT_STACK;
    hub->root_mapping_size = ROOT_STACK + guard;
    int flags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_STACK;
    char *low = mmap(NULL, hub->root_mapping_size, PROT_READ | PROT_WRITE, flags, -1, 0);
    if (low == MAP_FAILED) return false;
    if (mprotect(low, guard, PROT_NONE) != 0) {
        munmap(low, hub->root_mapping_size);
        return false;
    }
    hub->root_mapping = low;
    hub->root.stack_low = low + guard;
    hub->root.stack_high = low + hub->root_mapping_size;
    hub->root.stack_pointer = gevent_first_frame(hub->root.stack_high, root_entry, &hub->root);
    strcpy(hub->root.name, "the hub");
#if GEVENT_ASAN
    __lsan_register_root_region(hub->root.stack_low, ROOT_STACK);
#endif
#if GEVENT_TSAN
    hub->root.tsan_fiber = __tsan_create_fiber(0);
#endif
    return true;
}

gevent_hub *gevent_hub_create(
    void *owner, gevent_hub_functions functions, size_t stack_size, gevent_thread_word access_head,
    gevent_thread_word task_words) {
    // The contexts inside want cache lines of their own.
    gevent_hub *hub = aligned_alloc(64, (sizeof *hub + 63) & ~(size_t)63);
    if (!hub) return NULL;
    memset(hub, 0, sizeof *hub);
    enum { FIRST_RING = 256 };
    hub->ready = malloc(FIRST_RING * sizeof *hub->ready);
    if (!hub->ready) {
        free(hub);
        errno = ENOMEM;
        return NULL;
    }
    hub->ready_mask = FIRST_RING - 1;
    hub->ready_head = hub->ready_tail = GEVENT_FIRST_PLACE;
    gevent_ready_grant(hub, 0);
    hub->owner = owner;
    hub->functions = functions;
    hub->errno_location = &errno;

    void **access = gevent_thread_word_address(access_head, 0, 1);
    hub->swaps_access_head = access != NULL;
    hub->access_head = access ? access : &hub->dummy_words[3];
    hub->calls_runtime_for_access =
        !access && swift_task_enterThreadLocalContext && swift_task_exitThreadLocalContext;
    hub->leaves_slowly = hub->calls_runtime_for_access;
    hub->attention_count = hub->calls_runtime_for_access;
    // What was found is the last of the three, the task-local fallback.
    void **block = gevent_thread_word_address(task_words, -2, 3);
    hub->swaps_task_words = block != NULL;
    hub->task_words = block ? block : &hub->dummy_words[0];

    hub->cxx_exceptions = __cxa_get_globals ? __cxa_get_globals() : &hub->no_cxx_exceptions;

    gevent_stacks_init(&hub->stacks, stack_size, 0);
    hub->stack_size = stack_size;
    hub->stack_room = room_of(&hub->stacks);
    gevent_timers_init(&hub->timers);
    hub->main.hub = hub->root.hub = hub;
    hub->root.attention = GEVENT_ATTENTION_IS_HUB;
    gevent_list_init(&hub->main.timeouts);
    gevent_list_init(&hub->root.timeouts);
    gevent_list_init(&hub->delayed_starts);
    gevent_list_init(&hub->idle_waiters);
    static uint32_t last_serial = 0;
    hub->serial = __atomic_add_fetch(&last_serial, 1, __ATOMIC_RELAXED);
    find_thread_stack(&hub->main);
    hub->current = &hub->main;
    if (!make_root(hub)) {
        int error = errno;
        free(hub->ready);
        free(hub);
        errno = error;
        return NULL;
    }
#if GEVENT_TSAN
    hub->main.tsan_fiber = __tsan_get_current_fiber();
#endif
    gevent_overflow_watch_this_thread();
    gevent_fork_watch();
    return hub;
}

void gevent_hub_destroy(gevent_hub *hub) {
    if (gevent_this_thread_hub == hub) gevent_this_thread_hub = NULL;
    gevent_overflow_unwatch_this_thread();
#if GEVENT_ASAN
    __lsan_unregister_root_region(hub->root.stack_low, (size_t)(hub->root.stack_high - hub->root.stack_low));
    __asan_unpoison_memory_region(hub->root.stack_low, (size_t)(hub->root.stack_high - hub->root.stack_low));
#endif
#if GEVENT_TSAN
    __tsan_destroy_fiber(hub->root.tsan_fiber);
#endif
    munmap(hub->root_mapping, hub->root_mapping_size);
    gevent_stacks_destroy(&hub->stacks);
    for (int class = 0; class < GEVENT_STACK_CLASSES; class++) {
        if (hub->sized_stacks[class]) gevent_stacks_destroy(hub->sized_stacks[class]);
        free(hub->sized_stacks[class]);
    }
    gevent_timers_destroy(&hub->timers);
    gevent_spawn_sites_destroy(&hub->spawn_sites);
    for (union record *record = hub->free_records, *next; record; record = next) {
        next = record->next_free;
        free(record);
    }
    for (gevent_links *links = hub->free_links, *next; links; links = next) {
        next = (gevent_links *)links->list.next;
        free(links);
    }
    free(hub->ready);
    free(hub);
}
