// The scheduler's hot state: who runs, who is ready, and how one hands over to the next.
//
// A context that parks switches straight to the next ready one. The hub's own context (`root`) runs when nothing is
// ready, when the entries it granted are used up, or when the next entry is a callback, which runs on the hub's stack.
#pragma once

#include "gevent_context.h"
#include "gevent_deferred.h"
#include "gevent_fork.h"
#include "gevent_lineage.h"
#include "gevent_locals.h"
#include "gevent_spawn_site.h"
#include "gevent_stacks.h"
#include "gevent_thread_words.h"
#include "gevent_timers.h"

/// A ready queue entry is a pointer, tagged in its low bits with what it points to.
enum {
    GEVENT_READY_RESUME = 0,    // the stack pointer of a context that stopped
    GEVENT_READY_START = 1,     // a retained Swift greenlet that has not run yet, and so has no stack
    GEVENT_READY_CALLBACK = 2,  // a retained Swift hub callback
    GEVENT_READY_START_SIZED = 3,  // like START, for a stack of the size that `stack_class` of the hub's functions says
    GEVENT_READY_TAGS = 3,
};

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
    uint32_t attention_count; // reasons not to take the short way: contexts that must look up before they park, the
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
    gevent_mailbox_lock *mailbox_lock;
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

// MARK: the ready queue

void gevent_ready_grow(gevent_hub *hub);

/// So that two that hand control to each other forever stop neither timers nor descriptors.
enum { GEVENT_HANDOVERS = 128 };

/// Where the ready queue begins, so that its head can go back by as many entries as there may ever be.
#define GEVENT_FIRST_PLACE (1ULL << 48)

/// How many entries may be taken before the hub has to run.
static inline void gevent_ready_grant(gevent_hub *hub, uint64_t count) {
    hub->ready_limit = hub->ready_head + count;
    hub->handovers_left = GEVENT_HANDOVERS;
}

/// Switches between stacks so far, and starts without one.
static inline uint64_t gevent_switch_count(const gevent_hub *hub) {
    return hub->ready_head - GEVENT_FIRST_PLACE + hub->moved_count + hub->root_switch_count + hub->handover_count;
}

static inline uint64_t gevent_ready_count(const gevent_hub *hub) { return hub->ready_tail - hub->ready_head; }

static inline void gevent_ready_push(gevent_hub *hub, const void *pointer, unsigned tag) {
    if (hub->ready_tail - hub->ready_head > hub->ready_mask) gevent_ready_grow(hub);
    hub->ready[hub->ready_tail++ & hub->ready_mask] = (uintptr_t)pointer | tag;
}

/// Moves the entries from `place` to the tail in front of all others, in their order. Entries that stay keep their
/// places. On the hub's stack only.
void gevent_ready_move_to_front(gevent_hub *hub, uint64_t place);

/// How many entries that were moved to the front have not been taken.
static inline uint64_t gevent_ready_front_count(const gevent_hub *hub) {
    return hub->front_end > hub->ready_head ? hub->front_end - hub->ready_head : 0;
}

/// Whether every entry before `place` has been taken, those in front of the queue aside.
static inline bool gevent_ready_has_passed(const gevent_hub *hub, uint64_t place) {
    return hub->ready_head >= place || hub->front_end >= place;
}

typedef struct gevent_ready_entry {
    void *pointer;
    unsigned tag;
} gevent_ready_entry;

/// Takes the next entry whatever it is. Only for the hub, and not when the queue is empty.
gevent_ready_entry gevent_ready_pop(gevent_hub *hub);

// MARK: switching

/// The current context leaves the CPU and returns when somebody has made it ready. The caller has seen to that.
void gevent_park(gevent_hub *hub);

/// Has every switch told to `watcher`, which may look at everything and change nothing; null for an end of that. It
/// costs nothing while there is none. Greenlets that begin on the stack of one that has ended do so without a switch.
void gevent_hub_watch_switches(gevent_hub *hub, gevent_switch_watcher watcher);

/// What the current context has to see to before it parks: one of GEVENT_ATTENTION. The context itself is looked at
/// only if some context has something to see to, since the rest of a yield does not touch it.
static inline uint8_t gevent_attention(const gevent_hub *hub) {
    if (__builtin_expect(hub->attention_count == 0, 1)) return GEVENT_ATTENTION_NONE;
    return hub->current->attention;
}

/// The current context of this thread goes to the back of the ready queue. Returns false, without having done anything,
/// if there is no hub or the context has something to see to first.
bool gevent_yield(void);

static inline void gevent_attention_raise(gevent_context *context) {
    context->hub->attention_count += context->attention == GEVENT_ATTENTION_NONE;
    if (context->attention == GEVENT_ATTENTION_NONE) context->attention = GEVENT_ATTENTION_ERROR;
}

/// From here to the end of its greenlet the context must not park, as if it were the hub's.
static inline void gevent_attention_disown(gevent_context *context) {
    context->hub->attention_count += context->attention == GEVENT_ATTENTION_NONE;
    context->attention = GEVENT_ATTENTION_IS_HUB;
}

/// The context is the next greenlet's.
static inline void gevent_attention_reset(gevent_context *context) {
    context->hub->attention_count -= context->attention != GEVENT_ATTENTION_NONE;
    context->attention = GEVENT_ATTENTION_NONE;
}

static inline void gevent_attention_clear(gevent_context *context) {
    if (context->attention != GEVENT_ATTENTION_ERROR) return;
    context->attention = GEVENT_ATTENTION_NONE;
    context->hub->attention_count--;
}

/// On the hub's stack: runs ready contexts until the grant is used up, the queue is empty, or the hub itself has to
/// act on the next entry: it is a callback, or a greenlet for which there is no stack. Returns which of these.
typedef enum gevent_run_result {
    GEVENT_RUN_DRAINED = 0,
    GEVENT_RUN_GRANT_USED = 1,
    GEVENT_RUN_CALLBACK = 2,
    GEVENT_RUN_NO_STACK = 3,
    GEVENT_RUN_VISIT = 4,  // a context came by gevent_visit_hub
} gevent_run_result;
gevent_run_result gevent_run_ready(gevent_hub *hub);

/// Hands control to the hub's stack, past the ready queue, and returns when the hub has called gevent_end_visit.
/// Nothing else runs in between. For work that needs the hub's large stack or must not park. Not on that stack itself.
void gevent_visit_hub(gevent_hub *hub);

/// On the hub's stack: hands control back to the visitor. Returns when the hub runs again.
void gevent_end_visit(gevent_hub *hub);

// MARK: waits

/// Ends a wait if it is still going on: takes it out of whatever it waits in, stops its timer, makes the context
/// ready. Every wait goes through here exactly once; whoever comes second gets false.
bool gevent_wait_end(gevent_context *context, uint8_t outcome);

/// Memory of the hub's own free list, for any of its small records; not cleared.
void *gevent_record_take(gevent_hub *hub);
/// Takes a parked context out of whatever it waits in, for good: nothing makes it ready any more.
void gevent_wait_abandon(gevent_context *context);

/// Records from the hub's own free list: steady state allocates nothing. Aborts without memory.
gevent_deferred *gevent_deferred_take(gevent_hub *hub);
/// Frees the record if its hub is gone and null is passed for it.
void gevent_record_give_back(gevent_hub *hub, void *record);

/// The same for links.
gevent_links *gevent_links_take(gevent_hub *hub);
void gevent_links_give_back(gevent_hub *hub, gevent_links *links);

/// It does not happen any more: takes the record, which is the caller's then, out of the timers and out of its list.
static inline void gevent_deferred_cancel(gevent_hub *hub, gevent_deferred *deferred) {
    gevent_timers_cancel(&hub->timers, &deferred->timer);
    gevent_node_unlink(&deferred->node);
}

/// Parks until somebody calls gevent_wait_end, and returns its outcome. Hooks (link, descriptor slot, timer) are
/// set by the caller beforehand.
uint8_t gevent_wait(gevent_hub *hub, uint8_t kind, const void *object);

/// The same, but control goes straight to `target`, which is parked and whose wait this ends with `outcome`. When it
/// has been handed over too often without the hub, `target` takes its turn in the ready queue instead.
uint8_t gevent_wait_for_switch(
    gevent_hub *hub, uint8_t kind, const void *object, gevent_context *target, uint8_t outcome);

/// The same for a retained Swift greenlet that has not run, with its tag for the ready queue. If there is no stack for
/// it, the hub finds that out.
uint8_t gevent_wait_for_start(gevent_hub *hub, uint8_t kind, const void *object, void *greenlet, unsigned tag);

/// Arms the current wait's timer before it parks.
static inline void gevent_wait_set_timer(
    gevent_hub *hub, gevent_context *context, int64_t deadline, int64_t now, unsigned timer_kind, bool referenced) {
    context->timer.kind = (uint8_t)timer_kind;
    context->timer.payload = context;
    context->timer.referenced = referenced;
    gevent_timers_start(&hub->timers, &context->timer, deadline, now);
}

/// Fires what is due. Sleeps and wait timeouts are ended here; the first timer that Swift has to act on is returned,
/// no longer pending; null when nothing more is due.
gevent_timer *gevent_fire_timers(gevent_hub *hub, int64_t now);

// MARK: stacks of all sizes

/// The class of the smallest stacks that have `bytes`: 0 if that is what the hub's own were asked to have.
uint8_t gevent_hub_stack_class(const gevent_hub *hub, size_t bytes);

/// The stacks of a class; null if there are none yet.
gevent_stacks *gevent_hub_stacks(gevent_hub *hub, uint8_t stack_class);

/// The stacks in one of whose slabs `address` lies; null if it does in none. Reads no memory of any stack.
const gevent_stacks *gevent_hub_stacks_around(const gevent_hub *hub, const void *address);

/// gevent_stacks_find in the stacks of all sizes.
gevent_context *gevent_hub_find_stack(const gevent_hub *hub, const void *address);

/// gevent_stacks_for_each for the stacks of all sizes.
void gevent_hub_for_each_stack(gevent_hub *hub, void (*visit)(gevent_context *context, void *argument), void *argument);

/// How many slots were ever cut, and how many of them are free with their memory.
size_t gevent_hub_stack_count(const gevent_hub *hub);
size_t gevent_hub_idle_stacks(const gevent_hub *hub);

/// gevent_stacks_trim for the stacks of all sizes; of each are kept `keep`, or as many as are in use.
size_t gevent_hub_trim_stacks(gevent_hub *hub, size_t keep, size_t most);

/// Takes a bounded step in giving back what idle stacks hold; for the hub when nothing is ready. Returns when it wants
/// to be called again: `now` if there is more to do at once, INT64_MAX if nothing is left to do until something has
/// run.
///
/// A sweep over all stacks takes place at most once a second, and less often with more than 10,000 stacks, so that it
/// costs at most 1 % of the processor.
int64_t gevent_hub_shed_stacks(gevent_hub *hub, int64_t now);

/// Records where the calling function was called from, by a greenlet that was itself made at `spawner`. Null if nothing
/// could be recorded.
const gevent_spawn_site *gevent_hub_capture_spawn_site(gevent_hub *hub, const gevent_spawn_site *spawner);

// MARK: descriptors

/// Who waits on a descriptor. The table is the Swift side's; the waits' `wait_slot`s point into it.
typedef struct gevent_descriptor {
    gevent_context *reader, *writer;
    void *watch;          // a retained Swift DescriptorWatch, told of readability when nobody is parked to read
    void *observers;      // the retained Swift DescriptorObservers, while there are any
    uint32_t generation;  // counts the closes of this number, so that events of an earlier life are known as such
    uint8_t armed;        // the readiness the loop was asked for
    uint8_t woken;        // the readiness somebody was woken for who has not run since
} gevent_descriptor;

/// Hooks the current context into a descriptor's place, which the caller has found free.
static inline void gevent_wait_set_slot(gevent_hub *hub, gevent_context **slot) {
    *slot = hub->current;
    hub->current->wait_slot = slot;
    hub->descriptor_waiters++;
}

// MARK: addresses Swift cannot take of a field

static inline gevent_context *gevent_hub_main(gevent_hub *hub) { return &hub->main; }
static inline gevent_context *gevent_hub_root(gevent_hub *hub) { return &hub->root; }
static inline gevent_context **gevent_descriptor_reader(gevent_descriptor *entry) { return &entry->reader; }
static inline gevent_context **gevent_descriptor_writer(gevent_descriptor *entry) { return &entry->writer; }

/// The start that was delayed after `record`; null if there is none.
static inline gevent_deferred *gevent_next_delayed_start(gevent_hub *hub, gevent_deferred *record) {
    if (record->node.next == &hub->delayed_starts) return NULL;
    return gevent_deferred_of_node(record->node.next);
}

/// The context that has waited longest for nothing else to be runnable; null if none does.
static inline gevent_context *gevent_first_idle_waiter(gevent_hub *hub) {
    if (gevent_list_is_empty(&hub->idle_waiters)) return NULL;
    return ((gevent_link *)hub->idle_waiters.next)->payload;
}

/// Hooks the current context into a list of those that wait for the same thing.
static inline void gevent_wait_set_list(gevent_hub *hub, gevent_node *list) {
    gevent_link *link = &hub->current->wait_link;
    link->kind = GEVENT_LINK_WAKE;
    link->payload = hub->current;
    gevent_list_append(list, &link->node);
}

static inline gevent_node *gevent_hub_idle_waiters(gevent_hub *hub) { return &hub->idle_waiters; }

/// Null if no start is delayed.
static inline gevent_deferred *gevent_first_delayed_start(gevent_hub *hub) {
    if (gevent_list_is_empty(&hub->delayed_starts)) return NULL;
    return gevent_deferred_of_node(hub->delayed_starts.next);
}

/// The return addresses on the stack of a context that is parked, innermost first, as far as frame pointers lead and at
/// most `most`. Returns how many; none of one that is not parked.
size_t gevent_parked_frames(const gevent_context *context, void **frames, size_t most);

/// The same of a context that stopped at `stack_pointer`, on a stack that ends at `stack_high`.
size_t gevent_frames_at(const void *stack_pointer, const void *stack_high, void **frames, size_t most);
