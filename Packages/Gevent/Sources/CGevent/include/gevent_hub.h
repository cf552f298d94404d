// The hub: the state of one thread's scheduler.
#pragma once

#include "gevent_context.h"
#include "gevent_deferred.h"
#include "gevent_spawn_site.h"
#include "gevent_stacks.h"
#include "gevent_thread_words.h"
#include "gevent_timers.h"

/// Additional steps of a spawn, as bits.
enum {
    GEVENT_SPAWN_TRACKS = 1,    // records the spawner and the spawn site
    GEVENT_SPAWN_INHERITS = 2,  // copies the values of inheriting locals
    GEVENT_SPAWN_CALLS = 4,     // calls spawn callbacks
    GEVENT_SPAWN_TRACES = 8,    // notifies the trace
};

/// The functions that Swift provides to the hub.
typedef struct gevent_hub_functions {
    void (*run_greenlet)(void *greenlet, gevent_context *context);  // runs a greenlet to its end, on its stack
    uint8_t (*stack_class)(const void *greenlet);                   // for a greenlet that is queued as START_SIZED
    void (*run_hub)(void *hub);                                     // runs the hub's loop, on the hub's stack
} gevent_hub_functions;

/// Called before a switch, on the running stack. `is_start`: the target greenlet begins to run. `has_ended`: the
/// running greenlet has ended, so it is never resumed on that stack.
typedef void (*gevent_switch_watcher)(
    void *owner, gevent_context *origin, gevent_context *target, bool is_start, bool has_ended);

struct gevent_sample;

/// The C++ runtime's state for each thread (`__cxa_eh_globals` of the Itanium ABI): the exceptions whose catch blocks
/// are running, innermost first, and the number of exceptions that are thrown and not caught yet.
typedef struct gevent_cxx_exceptions {
    void *caught;
    unsigned uncaught;
} gevent_cxx_exceptions;

struct gevent_mailbox_lock;

typedef struct gevent_hub {
    // The fields that a switch reads and writes. The assembly accesses these five by their offsets.
    gevent_context *current;
    // The thread's words that are switched with a greenlet. Never null: a word that was not found points to a dummy.
    void **access_head;
    void **task_words;  // three: task, executor tracking, task-local fallback
    int *errno_location;
    // How far below its context a greenlet's stack pointer may be: the smallest room among the stack sizes.
    size_t stack_room;

    uintptr_t *ready;  // a ring buffer; head and tail are not wrapped
    uint64_t ready_head, ready_tail, ready_mask;
    uint64_t ready_limit;     // the hub must run before the head passes this
    uint32_t slow_path_reasons; // number of reasons to disable the fast path: contexts with pending flags, the hub
                              // while it runs, a switch watcher, and permanently, if runtime calls have to swap
                              // the access list
    bool calls_runtime_for_access, swaps_access_head, swaps_task_words;
    bool is_forked;           // the process is a child whose loop still uses the parent's kernel objects
    bool has_slow_switches;       // a switch also has to call the runtime or a watcher
    // This thread's. All zero during a change of stacks: a greenlet with exceptions in flight saves them first.
    gevent_cxx_exceptions *cxx_exceptions;

    uint64_t root_switch_count;  // switches to the hub's own context
    uint64_t handover_count;     // switches between contexts that bypass the ready queue
    uint64_t poll_phase;         // number of polls begun plus polls ended; odd during a poll
    uint32_t handovers_left;     // switches that may still bypass the ready queue before the hub runs
    uint32_t serial;             // unique in the process; greenlets identify their hub by it
    int64_t now;                 // the loop's time when the hub last read it
    uint64_t descriptor_waiters; // contexts parked on descriptors, and descriptors with observers
    uint64_t ended_count;        // greenlets that have ended and objects that became ready: their common order
    uint32_t spawn_flags;       // GEVENT_SPAWN_…: the additional steps of a spawn
    uint64_t spawn_count;        // greenlets that were started
    uint64_t parked_count;       // contexts that are parked
    void *owner;                 // the Swift Hub
    gevent_switch_watcher watch_switch;
    struct gevent_sample *sample;  // where a monitor wants the running greenlet recorded; null without a monitor
    gevent_hub_functions functions;
    gevent_context *hub_caller;    // the context that waits in gevent_call_hub, or null
    uint64_t front_end;    // end of the entries moved to the front last; at most ready_head once all have run
    uint64_t moved_count;  // entries moved to the front, each of which moved ready_head back by one

    gevent_context main, root;
    gevent_stacks stacks;  // of the default size
    gevent_stacks *sized_stacks[GEVENT_STACK_CLASSES + 1];  // by class, the default first; null until one is needed
    uint8_t largest_class; // the highest class that was needed; 0 if all stacks have the default size
    size_t stack_size;     // the default size as requested
    size_t live_stacks, peak_live_stacks;  // of all sizes
    // The sweep over idle stacks: when the next one may begin, and the progress of the current one.
    int64_t shed_due;
    uint64_t shed_switch_count;  // gevent_switch_count when the latest sweep began
    uint32_t shed_next;
    uint8_t shed_class;
    bool is_shedding, needs_another_sweep;
    gevent_timers timers;
    gevent_spawn_sites spawn_sites;
    gevent_node delayed_starts;  // gevent_deferred records
    gevent_node idle_waiters;    // the wait_links of contexts that wait until nothing else is ready
    struct gevent_mailbox_lock *mailbox_lock;
    void *free_records;          // recycled records of every kind but links; all have one size
    gevent_links *free_links;    // recycled links, which are small and may be as many as greenlets
    void *root_mapping;
    size_t root_mapping_size;
    void *dummy_words[4];
    gevent_cxx_exceptions no_cxx_exceptions;  // used without the C++ runtime
} gevent_hub;

/// The calling thread's hub. Greenlets never change thread, so a compiler may cache the variable's address.
extern __thread gevent_hub *gevent_this_thread_hub;
static inline gevent_hub *gevent_hub_current(void) { return gevent_this_thread_hub; }
static inline void gevent_hub_set_current(gevent_hub *hub) { gevent_this_thread_hub = hub; }

/// Creates a hub. Returns null with errno set if there is no memory. Call on the thread that it belongs to.
gevent_hub *gevent_hub_create(
    void *owner, gevent_hub_functions functions, size_t stack_size, gevent_thread_word access_head,
    gevent_thread_word task_words);

/// Destroys a hub. Call after `run_hub` has returned and every greenlet has ended.
void gevent_hub_destroy(gevent_hub *hub);

/// Records where the calling function was called from, by a greenlet whose own spawn site is `spawner`. Returns null if
/// the site could not be recorded.
const gevent_spawn_site *gevent_hub_capture_spawn_site(gevent_hub *hub, const gevent_spawn_site *spawner);

/// Return the address of a field, which Swift cannot take.
static inline gevent_context *gevent_hub_main(gevent_hub *hub) { return &hub->main; }
static inline gevent_context *gevent_hub_root(gevent_hub *hub) { return &hub->root; }
