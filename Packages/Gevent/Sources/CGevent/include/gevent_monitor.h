// What a thread that watches a hub may look at: two counters, and a sample of what the hub's thread is doing.
//
// A thread that sleeps in the kernel is not disturbed: the kernel tells where it is, and the watcher copies the top of
// its stack. One that runs is asked by a signal. The handler runs on the hub's thread, in the middle of whatever keeps
// it busy, and copies the registers and the top of the stack: no lock, no allocation, nothing that could wait or fault.
// What the copy means is worked out by the watcher.
#pragma once

#include <pthread.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct gevent_hub;

/// What the hub does as one number that only grows: switches, starts, callbacks, polls. Equal twice means that nothing
/// of the kind happened in between. Any thread, while the hub exists.
uint64_t gevent_hub_activity(const struct gevent_hub *hub);

/// Whether the hub is in a poll. Any thread, while the hub exists.
bool gevent_hub_is_polling(const struct gevent_hub *hub);

/// Around a poll: on the hub's thread.
void gevent_hub_poll_begins(struct gevent_hub *hub);
void gevent_hub_poll_ends(struct gevent_hub *hub);

/// What runs on a hub's thread.
enum {
    GEVENT_SAMPLE_OF_GREENLET = 0,
    GEVENT_SAMPLE_OF_MAIN = 1,
    GEVENT_SAMPLE_OF_HUB = 2,
};

/// A greenlet by what can be read of it from outside.
typedef struct gevent_identity {
    const void *owner;  // the greenlet: an address to name it by, and not to be followed
    const void *isa;    // its class; null if that is not known
    uint32_t kind;      // one of GEVENT_SAMPLE_OF
    char name[48];      // as in the context
} gevent_identity;

/// Opaque, since Swift would import the copy of the stack as a tuple of 8,192 words, and emit 75 KB of code for it.
typedef struct gevent_sample gevent_sample;

/// The greenlet that was running.
const gevent_identity *gevent_sample_identity(const gevent_sample *sample);

/// Makes samples of this thread's hub possible: installs the handler once per process, and lets the signal through to
/// this thread. 0 or an errno. On the hub's thread.
int gevent_sampling_start(struct gevent_hub *hub);

/// On the hub's thread, when nobody asks any more.
void gevent_sampling_stop(struct gevent_hub *hub);

/// In a forked child, before anybody asks.
void gevent_sampling_reset(struct gevent_hub *hub);

/// Takes a sample of `thread`, the hub's. If it runs, it is asked by the signal and has `milliseconds` to answer. If it
/// does not, the sample has no more than what can be read from outside. Null if the hub has gone on since its
/// activity was `activity`. Valid until the next call. One thread at a time, and not the hub's.
const gevent_sample *gevent_sampling_take(
    struct gevent_hub *hub, pthread_t thread, uint64_t activity, unsigned milliseconds);

typedef struct gevent_frame {
    const void *address;  // what gevent_symbolize takes
    bool is_guess;        // found lying on the stack, and not through frame records
} gevent_frame;

/// The calls that lead to where the sample was taken, innermost first. Returns how many.
size_t gevent_sample_backtrace(const gevent_sample *sample, gevent_frame *frames, size_t most);

enum { GEVENT_OWN_LOCK_FRAMES = 64, GEVENT_OWN_LOCK_HOLDERS = 8 };

/// A lock that the thread of a sample waits for and holds itself: until the process ends.
typedef struct gevent_own_lock {
    gevent_identity *holders;  // who may have taken it: room for GEVENT_OWN_LOCK_HOLDERS
    size_t holder_count;
    void **frames;  // where the holder stopped, if it is in the initialiser whose lock it is; room for
                    // GEVENT_OWN_LOCK_FRAMES
    size_t frame_count;
    int initializer;  // which of the frames is that initialiser; -1 if it is another lock, and all of them are guesses
} gevent_own_lock;

/// Finds out what `sample`, just taken, says of such a lock. Returns whether there is one. The caller sets the two
/// arrays. On the watcher's thread.
bool gevent_find_own_lock(struct gevent_hub *hub, const gevent_sample *sample, gevent_own_lock *lock);

struct gevent_context;

/// Describes a context, except for its class. Any thread, while the hub exists.
void gevent_describe_context(
    const struct gevent_hub *hub, const struct gevent_context *context, gevent_identity *identity);

/// The kernel's number of the calling thread.
int gevent_this_thread_number(void);
