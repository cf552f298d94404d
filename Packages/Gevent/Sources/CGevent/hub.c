#define _GNU_SOURCE
#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "gevent_hub.h"
#include "gevent_overflow.h"
#include "gevent_sanitizers.h"
#include "gevent_switch.h"

__thread gevent_hub *gevent_this_thread_hub = NULL;

// Exported by libswiftCore for exactly this purpose; two words of state per flow of control. Weak, so that the C part
// can be tested alone.
extern void swift_task_enterThreadLocalContext(void *state) __attribute__((weak));
extern void swift_task_exitThreadLocalContext(void *state) __attribute__((weak));

// MARK: switching

#if GEVENT_ASAN || GEVENT_TSAN
static bool is_over(const gevent_context *context) { return context->owner == NULL && context->slot_in_use; }
#endif

/// Two of the four thread-local words, to be moved at once.
typedef uint64_t word_pair __attribute__((vector_size(16), aligned(8), may_alias));

#if GEVENT_TSAN
__attribute__((no_sanitize("thread")))
#endif
__attribute__((noinline, cold)) static void
swap_access_by_runtime(gevent_context *from, gevent_context *to) {
    // The runtime's own form keeps its state in two words that it alone reads.
    swift_task_exitThreadLocalContext(from->runtime_access_state);
    swift_task_enterThreadLocalContext(to->runtime_access_state);
}

/// The one place where stacks change. Inlined into its callers, where nothing is left to do after it, so that it ends
/// in a jump and the frame it is called from is the frame that is resumed.
#if GEVENT_TSAN
__attribute__((no_sanitize("thread")))
#endif
__attribute__((always_inline)) static inline void
switch_to(gevent_hub *hub, gevent_context *from, gevent_context *to) {
    void **access_head = hub->access_head;
    word_pair *words = (word_pair *)hub->task_words;
    word_pair *from_words = (word_pair *)from->task_words, *to_words = (word_pair *)to->task_words;
    int *errno_location = hub->errno_location;
    // Everything is read before anything is written: the words may be anywhere, for all the compiler knows.
    void *from_access = *access_head, *to_access = to->access_head, *load = to->stack_pointer;
    word_pair from_first = words[0], from_second = words[1], to_first = to_words[0], to_second = to_words[1];
    int from_errno = *errno_location, to_errno = to->saved_errno;
    from->access_head = from_access;
    from_words[0] = from_first;
    from_words[1] = from_second;
    from->saved_errno = from_errno;
    *access_head = to_access;
    words[0] = to_first;
    words[1] = to_second;
    *errno_location = to_errno;
    hub->current = to;
    hub->switch_count++;
#if GEVENT_ASAN
    // A stack that is never resumed gives up its fake frames.
    __sanitizer_start_switch_fiber(
        is_over(from) ? NULL : &from->asan_fake_stack, to->stack_low, (size_t)(to->stack_high - to->stack_low));
#endif
#if GEVENT_TSAN
    __tsan_switch_to_fiber(to->tsan_fiber, 0);
#endif
    gevent_swap_stacks(&from->stack_pointer, load);
#if GEVENT_ASAN
    __sanitizer_finish_switch_fiber(from->asan_fake_stack, NULL, NULL);
#endif
}

/// The same for callers of which there is one a greenlet's life or one a round of the hub.
#if GEVENT_TSAN
__attribute__((no_sanitize("thread")))
#endif
__attribute__((noinline)) static void
leave_for(gevent_hub *hub, gevent_context *from, gevent_context *to) {
    if (__builtin_expect(hub->calls_runtime_for_access, 0)) swap_access_by_runtime(from, to);
    switch_to(hub, from, to);
}

static void greenlet_entry(void *argument);

/// Gives a greenlet that has not run yet a stack, or returns null.
static gevent_context *context_for_start(gevent_hub *hub, void *greenlet) {
    gevent_context *context = gevent_stacks_take(&hub->stacks);
    if (__builtin_expect(context == NULL, 0)) return NULL;
    context->owner = greenlet;
    context->hub = hub;
    context->access_head = NULL;
    memset(context->task_words, 0, sizeof context->task_words);
    memset(context->runtime_access_state, 0, sizeof context->runtime_access_state);
    context->saved_errno = 0;
    context->stack_pointer = gevent_first_frame(context->stack_high, greenlet_entry, context);
#if GEVENT_ASAN || GEVENT_TSAN
    context->slot_in_use = true;
    context->asan_fake_stack = NULL;
#endif
#if GEVENT_TSAN
    if (!context->tsan_fiber) context->tsan_fiber = __tsan_create_fiber(0);
#endif
    return context;
}

/// Takes the next context to run, or names the hub's: the general case.
__attribute__((noinline)) static gevent_context *take_next(gevent_hub *hub) {
    if (hub->budget <= 0 || hub->ready_head == hub->ready_tail) return &hub->root;
    uintptr_t entry = hub->ready[hub->ready_head & hub->ready_mask];
    gevent_context *next;
    if ((entry & GEVENT_READY_TAGS) == GEVENT_READY_RESUME) {
        next = (gevent_context *)entry;
    } else if ((entry & GEVENT_READY_TAGS) == GEVENT_READY_START) {
        next = context_for_start(hub, (void *)(entry & ~(uintptr_t)GEVENT_READY_TAGS));
        if (!next) return &hub->root;
    } else {
        return &hub->root;
    }
    hub->ready_head++;
    hub->budget--;
    return next;
}

#if GEVENT_TSAN
__attribute__((no_sanitize("thread")))
#endif
__attribute__((noinline)) static void
park_slowly(gevent_hub *hub) {
    gevent_context *from = hub->current, *to = take_next(hub);
    if (to == from) return;  // it had made itself ready and nobody else is
    leave_for(hub, from, to);
}

/// The usual case, without a call before the jump, so that no register is saved twice: the next entry is a parked
/// context, there is budget, and the runtime's words are swapped here and not by the runtime.
#if GEVENT_TSAN
__attribute__((no_sanitize("thread")))
#endif
__attribute__((always_inline)) static inline void
park(gevent_hub *hub, gevent_context *from, uint64_t head, uint64_t tail) {
    if (__builtin_expect(hub->budget > 0 && head != tail && !hub->calls_runtime_for_access, 1)) {
        uintptr_t entry = hub->ready[head & hub->ready_mask];
        gevent_context *to = (gevent_context *)entry;
        if (__builtin_expect((entry & GEVENT_READY_TAGS) == GEVENT_READY_RESUME && to != from, 1)) {
            hub->ready_head = head + 1;
            hub->budget--;
            switch_to(hub, from, to);
            return;
        }
    }
    park_slowly(hub);
}

#if GEVENT_TSAN
__attribute__((no_sanitize("thread")))
#endif
__attribute__((noinline)) void
gevent_park(gevent_hub *hub) {
    park(hub, hub->current, hub->ready_head, hub->ready_tail);
}

#if GEVENT_TSAN
__attribute__((no_sanitize("thread")))
#endif
__attribute__((noinline)) static void
yield_slowly(gevent_hub *hub) {
    gevent_ready_push(hub, hub->current, GEVENT_READY_RESUME);
    park_slowly(hub);
}

#if GEVENT_TSAN
__attribute__((no_sanitize("thread")))
#endif
__attribute__((noinline)) void
gevent_yield(gevent_hub *hub) {
    uint64_t head = hub->ready_head, tail = hub->ready_tail;
    if (__builtin_expect(tail - head > hub->ready_mask, 0)) {
        yield_slowly(hub);
        return;
    }
    gevent_context *from = hub->current;
    hub->ready[tail & hub->ready_mask] = (uintptr_t)from;
    hub->ready_tail = tail + 1;
    park(hub, from, head, tail + 1);
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
        if (hub->budget > 0 && hub->ready_head != hub->ready_tail) {
            uintptr_t entry = hub->ready[hub->ready_head & hub->ready_mask];
            if ((entry & GEVENT_READY_TAGS) == GEVENT_READY_START) {
                // No switch at all: the next greenlet begins where this one began.
                hub->ready_head++;
                hub->budget--;
                self->owner = (void *)(entry & ~(uintptr_t)GEVENT_READY_TAGS);
                *hub->errno_location = 0;
                continue;
            }
        }
        // Given back while still standing on it: nobody else on this thread can take it before the switch.
        gevent_stacks_give_back(&hub->stacks, self);
        leave_for(hub, self, take_next(hub));
        abort();
    }
}

gevent_run_result gevent_run_ready(gevent_hub *hub) {
    for (;;) {
        if (hub->ready_head == hub->ready_tail) return GEVENT_RUN_DRAINED;
        if (hub->budget <= 0) return GEVENT_RUN_BUDGET_USED;
        uintptr_t entry = hub->ready[hub->ready_head & hub->ready_mask];
        if ((entry & GEVENT_READY_TAGS) == GEVENT_READY_CALLBACK) return GEVENT_RUN_CALLBACK;
        gevent_context *next = take_next(hub);
        if (next == &hub->root) return GEVENT_RUN_NO_STACK;
        leave_for(hub, &hub->root, next);
    }
}

static void root_entry(void *argument) {
    gevent_hub *hub = argument;
#if GEVENT_ASAN
    __sanitizer_finish_switch_fiber(NULL, NULL, NULL);
#endif
    hub->functions.run_hub(hub->owner);
    gevent_leave_root(hub);
    abort();
}

void gevent_leave_root(gevent_hub *hub) { leave_for(hub, &hub->root, &hub->main); }

// MARK: the ready queue

void gevent_ready_grow(gevent_hub *hub) {
    uint64_t capacity = hub->ready_mask + 1, larger = capacity * 2;
    uintptr_t *ring = malloc(larger * sizeof *ring);
    if (!ring) {
        fputs("gevent: out of memory for the ready queue\n", stderr);
        abort();
    }
    uint64_t count = gevent_ready_count(hub);
    for (uint64_t i = 0; i < count; i++) ring[i] = hub->ready[(hub->ready_head + i) & hub->ready_mask];
    free(hub->ready);
    hub->ready = ring;
    hub->ready_mask = larger - 1;
    hub->ready_head = 0;
    hub->ready_tail = count;
}

gevent_ready_entry gevent_ready_pop(gevent_hub *hub) {
    uintptr_t entry = hub->ready[hub->ready_head++ & hub->ready_mask];
    return (gevent_ready_entry){
        .pointer = (void *)(entry & ~(uintptr_t)GEVENT_READY_TAGS),
        .tag = (unsigned)(entry & GEVENT_READY_TAGS),
    };
}

// MARK: waits

bool gevent_wait_end(gevent_context *context, uint8_t outcome) {
    if (context->wait_state != GEVENT_WAIT_PARKED) return false;
    gevent_hub *hub = context->hub;
    context->wait_state = outcome;
    gevent_node_unlink(&context->wait_link.node);
    gevent_timers_cancel(&hub->timers, &context->timer);
    if (context->wait_slot) {
        *context->wait_slot = NULL;
        context->wait_slot = NULL;
        hub->descriptor_waiters--;
    }
    gevent_ready_push(hub, context, GEVENT_READY_RESUME);
    return true;
}

uint8_t gevent_wait(gevent_hub *hub, uint8_t kind, const void *object) {
    gevent_context *self = hub->current;
    self->wait_state = GEVENT_WAIT_PARKED;
    self->wait_kind = kind;
    self->wait_object = object;
    self->wait_since = hub->now;
    gevent_park(hub);
    uint8_t outcome = self->wait_state;
    self->wait_state = GEVENT_WAIT_NONE;
    return outcome;
}

union record {
    gevent_deferred deferred;
    gevent_links links;
    union record *next_free;
};

static union record *take_record(gevent_hub *hub) {
    union record *record = hub->free_records;
    if (record) {
        hub->free_records = record->next_free;
        return record;
    }
    record = malloc(sizeof *record);
    if (!record) {
        fputs("gevent: out of memory for a timer or link record\n", stderr);
        abort();
    }
    return record;
}

gevent_deferred *gevent_deferred_take(gevent_hub *hub) {
    gevent_deferred *deferred = &take_record(hub)->deferred;
    *deferred = (gevent_deferred){0};
    return deferred;
}

gevent_links *gevent_links_take(gevent_hub *hub) {
    gevent_links *links = &take_record(hub)->links;
    gevent_list_init(&links->list);
    return links;
}

void gevent_record_give_back(gevent_hub *hub, void *memory) {
    union record *record = memory;
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

__attribute__((noinline)) const gevent_spawn_site *gevent_hub_capture_spawn_site(gevent_hub *hub) {
    gevent_context *self = hub->current;
    return gevent_spawn_site_capture(&hub->spawn_sites, __builtin_frame_address(0), self->stack_high);
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
    // Hub callbacks, raw links and error reports run here.
    enum { ROOT_STACK = 1 << 20 };
    size_t guard = hub->stacks.guard_size;
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
    hub->root.stack_pointer = gevent_first_frame(hub->root.stack_high, root_entry, hub);
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
    hub->owner = owner;
    hub->functions = functions;
    hub->errno_location = &errno;

    void **access = gevent_thread_word_address(access_head, 0, 1);
    hub->swaps_access_head = access != NULL;
    hub->access_head = access ? access : &hub->dummy_words[4];
    hub->calls_runtime_for_access =
        !access && swift_task_enterThreadLocalContext && swift_task_exitThreadLocalContext;
    // What was found is the block's last word, the task-local fallback.
    void **block = gevent_thread_word_address(task_words, -3, 4);
    hub->swaps_task_words = block != NULL;
    hub->task_words = block ? block : &hub->dummy_words[0];

    gevent_stacks_init(&hub->stacks, stack_size);
    gevent_timers_init(&hub->timers);
    hub->main.hub = hub->root.hub = hub;
    hub->root.attention = GEVENT_ATTENTION_IS_HUB;
    gevent_list_init(&hub->main.timeouts);
    gevent_list_init(&hub->root.timeouts);
    gevent_list_init(&hub->delayed_starts);
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
    gevent_timers_destroy(&hub->timers);
    gevent_spawn_sites_destroy(&hub->spawn_sites);
    for (union record *record = hub->free_records, *next; record; record = next) {
        next = record->next_free;
        free(record);
    }
    free(hub->ready);
    free(hub);
}
