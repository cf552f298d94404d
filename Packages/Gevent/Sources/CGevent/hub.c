#define _GNU_SOURCE
#include "gevent_hub.h"

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "gevent_overflow.h"
#include "gevent_ready_queue.h"
#include "gevent_records.h"
#include "gevent_sanitizers.h"
#include "gevent_switch.h"

__thread gevent_hub *gevent_this_thread_hub = NULL;

// From the C++ runtime. Weak, since no product links that runtime: without it, no exception is in flight.
extern gevent_cxx_exceptions *__cxa_get_globals(void) __attribute__((weak));

/// Sets the bounds of the calling thread's own stack.
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

static void root_entry(void *argument) {
    gevent_hub *hub = ((gevent_context *)argument)->hub;
#if GEVENT_ASAN
    __sanitizer_finish_switch_fiber(NULL, NULL, NULL);
#endif
    hub->functions.run_hub(hub->owner);
    hub->slow_path_reasons--;
    gevent_switch_to(hub, &hub->root.stack_pointer, hub->main.stack_pointer, true);
    abort();
}

static bool make_root(gevent_hub *hub) {
    // Hub callbacks, raw links and error reports run here. A hub has one such stack, so a guard of the same size is
    // cheap.
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
    // Aligned, so that the contexts inside do not share cache lines with other data.
    gevent_hub *hub = aligned_alloc(64, (sizeof *hub + 63) & ~(size_t)63);
    if (!hub) return NULL;
    memset(hub, 0, sizeof *hub);
    enum { INITIAL_CAPACITY = 256 };
    hub->ready = malloc(INITIAL_CAPACITY * sizeof *hub->ready);
    if (!hub->ready) {
        free(hub);
        errno = ENOMEM;
        return NULL;
    }
    hub->ready_mask = INITIAL_CAPACITY - 1;
    hub->ready_head = hub->ready_tail = GEVENT_FIRST_INDEX;
    gevent_ready_grant(hub, 0);
    hub->owner = owner;
    hub->functions = functions;
    hub->errno_location = &errno;

    void **access = gevent_thread_word_address(access_head, 0, 1);
    hub->swaps_access_head = access != NULL;
    hub->access_head = access ? access : &hub->dummy_words[3];
    hub->calls_runtime_for_access =
        !access && swift_task_enterThreadLocalContext && swift_task_exitThreadLocalContext;
    hub->has_slow_switches = hub->calls_runtime_for_access;
    hub->slow_path_reasons = hub->calls_runtime_for_access;
    // The word that was found is the last of the three, the task-local fallback.
    void **block = gevent_thread_word_address(task_words, -2, 3);
    hub->swaps_task_words = block != NULL;
    hub->task_words = block ? block : &hub->dummy_words[0];

    hub->cxx_exceptions = __cxa_get_globals ? __cxa_get_globals() : &hub->no_cxx_exceptions;

    gevent_stacks_init(&hub->stacks, stack_size, 0);
    hub->sized_stacks[0] = &hub->stacks;
    hub->stack_size = stack_size;
    hub->stack_room = gevent_stacks_room(&hub->stacks);
    gevent_timers_init(&hub->timers);
    hub->main.hub = hub->root.hub = hub;
    hub->root.pending_flags = GEVENT_PENDING_REFUSED;
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
    for (int class = 1; class <= GEVENT_STACK_CLASSES; class++) {
        if (hub->sized_stacks[class]) gevent_stacks_destroy(hub->sized_stacks[class]);
        free(hub->sized_stacks[class]);
    }
    gevent_timers_destroy(&hub->timers);
    gevent_spawn_sites_destroy(&hub->spawn_sites);
    gevent_records_free(hub);
    free(hub->ready);
    free(hub);
}

__attribute__((noinline)) const gevent_spawn_site *gevent_hub_capture_spawn_site(
    gevent_hub *hub, const gevent_spawn_site *spawner) {
    gevent_context *self = hub->current;
    return gevent_spawn_site_capture(&hub->spawn_sites, spawner, self->stack_high);
}
