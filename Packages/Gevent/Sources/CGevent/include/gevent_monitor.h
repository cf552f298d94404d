// The interface of a thread that watches a hub: counters of its activity, and samples of its thread.
//
// A thread that sleeps in the kernel is not disturbed: the kernel reports its position, and the watcher copies the top
// of its stack. A running thread is sampled by a signal. The handler interrupts the hub's thread and copies the
// registers and the top of the stack. It takes no lock, does not allocate, and cannot wait or fault. The watcher then
// interprets the copy.
#pragma once

#include <pthread.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct gevent_hub;

/// Returns a count of the hub's switches, starts, callbacks and polls, which only grows. If two results are equal, none
/// of these happened in between. Any thread, while the hub exists.
uint64_t gevent_hub_activity(const struct gevent_hub *hub);

/// Whether the hub is in a poll. Any thread, while the hub exists.
bool gevent_hub_is_polling(const struct gevent_hub *hub);

/// Called before and after each poll, on the hub's thread.
void gevent_hub_poll_begins(struct gevent_hub *hub);
void gevent_hub_poll_ends(struct gevent_hub *hub);

/// The kind of context that runs on a hub's thread.
enum {
    GEVENT_SAMPLE_OF_GREENLET = 0,
    GEVENT_SAMPLE_OF_MAIN = 1,
    GEVENT_SAMPLE_OF_HUB = 2,
};

/// The identity of a greenlet, as far as another thread can read it.
typedef struct gevent_identity {
    const void *owner;  // address of the greenlet, as an ID; do not dereference it
    const void *isa;    // its class; null if unknown
    uint32_t kind;      // one of GEVENT_SAMPLE_OF
    char name[48];      // copied from the context
} gevent_identity;

/// Opaque, because Swift would import the copy of the stack as a tuple of 8,192 words and emit 75 KB of code for it.
typedef struct gevent_sample gevent_sample;

/// Returns the identity of the greenlet that was running.
const gevent_identity *gevent_sample_identity(const gevent_sample *sample);

/// Enables samples of this thread's hub: installs the handler once per process, and unblocks the signal on this thread.
/// Returns 0 or an errno. On the hub's thread.
int gevent_sampling_start(struct gevent_hub *hub);

/// Disables samples. On the hub's thread, after the last gevent_sampling_take has returned.
void gevent_sampling_stop(struct gevent_hub *hub);

/// Resets the state in a forked child, before the first gevent_sampling_take.
void gevent_sampling_reset(struct gevent_hub *hub);

/// Takes a sample of `thread`, the hub's. A running thread receives the signal and has `milliseconds` to answer. If it
/// does not answer, the sample contains only what other threads can read. Returns null if the hub's activity is no
/// longer `activity`. The sample is valid until the next call. One thread at a time, never the hub's.
const gevent_sample *gevent_sampling_take(
    struct gevent_hub *hub, pthread_t thread, uint64_t activity, unsigned milliseconds);

typedef struct gevent_frame {
    const void *address;  // a return address
    bool is_guess;        // found by scanning the stack, not through frame records
} gevent_frame;

/// Writes the call stack of the sample, innermost first. Returns the number of frames.
size_t gevent_sample_backtrace(const gevent_sample *sample, gevent_frame *frames, size_t most);

enum { GEVENT_SELF_DEADLOCK_FRAMES = 64, GEVENT_SELF_DEADLOCK_HOLDERS = 8 };

/// A deadlock of a thread with itself: it waits for a lock that one of its own suspended greenlets holds.
typedef struct gevent_self_deadlock {
    gevent_identity *holders;  // possible holders of the lock; room for GEVENT_SELF_DEADLOCK_HOLDERS
    size_t holder_count;
    void **frames;  // the holder's stack if the lock is a one-time initializer's; room for
                    // GEVENT_SELF_DEADLOCK_FRAMES
    size_t frame_count;
    int initializer;  // index of the initializer in `frames`; -1 for other locks, whose holders are all guesses
} gevent_self_deadlock;

/// Describes the self-deadlock in `sample`, which must be the latest. Returns false if there is none. The caller sets
/// the two arrays. On the watcher's thread.
bool gevent_find_self_deadlock(
    struct gevent_hub *hub, const gevent_sample *sample, gevent_self_deadlock *deadlock);

struct gevent_context;

/// Fills in the identity of a context's greenlet, except `isa`. Any thread, while the hub exists.
void gevent_describe_context(
    const struct gevent_hub *hub, const struct gevent_context *context, gevent_identity *identity);
