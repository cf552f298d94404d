// Thread-local words of the Swift runtime that belong to a flow of control, and so must travel with the greenlet.
//
// Two runtime structures are per thread and threaded through stack frames: the list of open exclusive accesses
// (libswiftCore), and the Concurrency runtime's block of current task, executor tracking and task-local fallback. A
// switch that left them behind would make ordinary code die of "Simultaneous accesses", or leak task-locals from one
// greenlet to another. Their addresses are no ABI, so they are found by looking: something known is put there, the
// thread-local segments are searched for it, and a finding that is not unique is no finding.
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/// Where a word stands in the thread-local segment of a loaded module: the same in every thread.
typedef struct gevent_thread_word {
    uintptr_t module;  // load address; 0 with offset 0 and found false if unknown
    size_t offset;
    bool found;
} gevent_thread_word;

/// Finds the head of the access list, on the calling thread.
gevent_thread_word gevent_find_access_head(void);

/// A copy of every thread-local segment of the calling thread.
typedef struct gevent_thread_snapshot gevent_thread_snapshot;
gevent_thread_snapshot *gevent_thread_snapshot_take(void);
void gevent_thread_snapshot_free(gevent_thread_snapshot *snapshot);

/// The one word that is null in `before` and `after`, and the same non-null value in `inside` and `deeper`: the owner
/// of a stack of bindings that is made for the first and goes with the last.
gevent_thread_word gevent_find_pushed_word(
    const gevent_thread_snapshot *before, const gevent_thread_snapshot *inside, const gevent_thread_snapshot *deeper,
    const gevent_thread_snapshot *after);

/// The Concurrency runtime's current task, or null. Any thread.
void *gevent_current_task(void);

/// The address of a found word in the calling thread, or null if its segment does not hold `words` words from
/// `first` words off it.
void **gevent_thread_word_address(gevent_thread_word word, ptrdiff_t first, size_t words);
