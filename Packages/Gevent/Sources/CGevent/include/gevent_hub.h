// The hub: the state of one thread's scheduler.
#pragma once

#include "gevent_context.h"
#include "gevent_deferred.h"
#include "gevent_spawn_site.h"
#include "gevent_stacks.h"
#include "gevent_thread_words.h"
#include "gevent_timers.h"

/// What a spawn does besides making and starting a greenlet, as bits.
enum {
    GEVENT_SPAWN_TRACKS = 1,    // remembers the spawner, and where it was spawned
    GEVENT_SPAWN_INHERITS = 2,  // copies the values of inheriting locals
    GEVENT_SPAWN_CALLS = 4,     // calls spawn callbacks
    GEVENT_SPAWN_TRACES = 8,    // tells the trace
};

/// What the hub needs from Swift.
typedef struct gevent_hub_functions {
    void (*run_greenlet)(void *greenlet, gevent_context *context);  // the whole life of a greenlet, on its stack
    uint8_t (*stack_class)(const void *greenlet);                   // of one that was queued as START_SIZED
    void (*run_hub)(void *hub);                                     // the loop, on the hub's stack
} gevent_hub_functions;

/// Told of a switch before it happens, on the stack that is left. `is_start`: the target begins to run there.
/// `is_over`: the stack that is left is never resumed by its greenlet, which has ended.
typedef void (*gevent_switch_watcher)(
    void *owner, gevent_context *origin, gevent_context *target, bool is_start, bool is_over);

struct gevent_sample;

/// What the C++ runtime keeps for each thread (`__cxa_eh_globals` of the Itanium ABI): the exceptions whose catch
/// blocks run, innermost first, and how many are thrown and not caught yet.
typedef struct gevent_cxx_exceptions {
    void *caught;
    unsigned uncaught;
} gevent_cxx_exceptions;

struct gevent_mailbox_lock;

typedef struct gevent_hub {
    // What a switch reads and writes; the assembly knows these five by their offsets.
    gevent_context *current;
    // Where this thread keeps the words that travel with a greenlet. Never null: what was not found points to a dummy.
    void **access_head;
    void **task_words;  // three: task, executor tracking, task-local fallback
    int *errno_location;
    // How far below its context a greenlet's stack pointer may lie: the most that every stack has room for.
    size_t stack_room;

    uintptr_t *ready;  // a ring; head and tail only ever grow
    uint64_t ready_head, ready_tail, ready_mask;
    uint64_t ready_limit;     // the hub must run before the head passes this
    uint32_t slow_path_reasons; // reasons not to take the short way: contexts that must look up before they park, the
                              // hub while it runs, whoever watches switches while they do, and for ever if the
                              // runtime's own calls have to swap the access list
    bool calls_runtime_for_access, swaps_access_head, swaps_task_words;
    bool is_forked;           // this is a child whose loop still works on the parent's kernel objects
    bool leaves_slowly;       // a switch is more than a change of stacks: the runtime is called, or a watcher
    // This thread's. All zero at every change of stacks: who leaves with exceptions in flight takes them along.
    gevent_cxx_exceptions *cxx_exceptions;

    uint64_t root_switch_count;  // switches to the hub's own context
    uint64_t handover_count;     // switches past the ready queue, from one context to another
    uint64_t poll_phase;         // polls begun and polls ended; odd during one
    uint32_t handovers_left;     // how often control may still be handed over past the ready queue until the hub runs
    uint32_t serial;             // unique in the process: what greenlets remember of their hub
    int64_t now;                 // the loop's time when the hub last looked
    uint64_t descriptor_waiters; // contexts parked on descriptors
    uint64_t ended_count;        // greenlets that have ended
    uint32_t spawn_duties;       // GEVENT_SPAWN_…: what a spawn has to do besides
    uint64_t spawn_count;        // greenlets that were started
    uint64_t parked_count;       // contexts that wait
    void *owner;                 // the Swift Hub
    gevent_switch_watcher watch_switch;
    struct gevent_sample *sample;  // where a monitor wants to be told what runs; null without one
    gevent_hub_functions functions;
    gevent_context *visitor;      // has the hub's stack do something for it, and waits; null if none does
    uint64_t front_end;    // where the entries end that were moved to the front last; at most ready_head if none is left
    uint64_t moved_count;  // entries that were moved to the front: so often ready_head has gone back

    gevent_context main, root;
    gevent_stacks stacks;  // of the default size
    gevent_stacks *sized_stacks[GEVENT_STACK_CLASSES];  // by class, from 1 on; null until one is wanted
    uint8_t largest_class; // the highest class that was wanted; 0 if all stacks have the default size
    size_t stack_size;     // the default as it was asked for
    size_t live_stacks, peak_live_stacks;  // of all sizes
    // The sweep over idle stacks: when the next may begin, and how far this one has come.
    int64_t shed_due;
    uint64_t shed_switch_count;  // gevent_switch_count when the latest sweep began
    uint32_t shed_next;
    uint8_t shed_class;
    bool is_shedding, sheds_again;
    gevent_timers timers;
    gevent_spawn_sites spawn_sites;
    gevent_node delayed_starts;  // gevent_deferred records
    gevent_node idle_waiters;    // the wait_links of contexts that want nothing else to be runnable
    struct gevent_mailbox_lock *mailbox_lock;
    void *free_records;          // recycled records of every kind but links, one size for all
    gevent_links *free_links;    // recycled links: there may be as many as greenlets, and they are small
    void *root_mapping;
    size_t root_mapping_size;
    void *dummy_words[4];
    gevent_cxx_exceptions no_cxx_exceptions;  // without the C++ runtime
} gevent_hub;

/// The calling thread's hub. Greenlets never change thread, so a compiler may keep the variable's address.
extern __thread gevent_hub *gevent_this_thread_hub;
static inline gevent_hub *gevent_hub_current(void) { return gevent_this_thread_hub; }
static inline void gevent_hub_set_current(gevent_hub *hub) { gevent_this_thread_hub = hub; }

/// Null with errno set if there is no memory for it. Call on the thread it belongs to.
gevent_hub *gevent_hub_create(
    void *owner, gevent_hub_functions functions, size_t stack_size, gevent_thread_word access_head,
    gevent_thread_word task_words);

/// After `run_hub` has returned and every greenlet is over.
void gevent_hub_destroy(gevent_hub *hub);

/// Records where the calling function was called from, by a greenlet that was itself made at `spawner`. Null if nothing
/// could be recorded.
const gevent_spawn_site *gevent_hub_capture_spawn_site(gevent_hub *hub, const gevent_spawn_site *spawner);

/// The address of a field, which Swift cannot take.
static inline gevent_context *gevent_hub_main(gevent_hub *hub) { return &hub->main; }
static inline gevent_context *gevent_hub_root(gevent_hub *hub) { return &hub->root; }
