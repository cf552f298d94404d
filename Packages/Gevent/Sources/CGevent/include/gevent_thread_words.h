// Thread-local words of the Swift runtime that belong to a flow of control, and so must be switched with the greenlet.
//
// Two runtime structures are per thread and point into stack frames: the list of open exclusive accesses
// (libswiftCore), and the Concurrency runtime's block of current task, executor tracking and task-local fallback. If a
// switch did not save them, correct code would crash with "Simultaneous accesses", or task-locals would leak from one
// greenlet to another. Their addresses are not ABI. To find them, the code stores a known value, searches the
// thread-local segments for it, and accepts only a unique match.
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/// The position of a word in the thread-local segment of a loaded module. It is the same in every thread.
typedef struct gevent_thread_word {
    uintptr_t module;  // load address; if unknown, 0 with offset 0 and found false
    size_t offset;
    bool found;
} gevent_thread_word;

/// Finds the head of the list of exclusive accesses, on the calling thread.
gevent_thread_word gevent_find_access_head(void);

/// A copy of every thread-local segment of the calling thread.
typedef struct gevent_thread_snapshot gevent_thread_snapshot;
gevent_thread_snapshot *gevent_thread_snapshot_take(void);
void gevent_thread_snapshot_free(gevent_thread_snapshot *snapshot);

/// Finds the only word that is null in `before` and `after` and has the same non-null value in `inside` and `deeper`:
/// the owner of a stack of bindings, created with the first binding and deallocated with the last.
gevent_thread_word gevent_find_pushed_word(
    const gevent_thread_snapshot *before, const gevent_thread_snapshot *inside, const gevent_thread_snapshot *deeper,
    const gevent_thread_snapshot *after);

/// Returns the Concurrency runtime's current task, or null. Any thread.
void *gevent_current_task(void);

/// Returns the address in the calling thread of the word `first` words away from the found one; null if the segment
/// does not contain `words` words from there.
void **gevent_thread_word_address(gevent_thread_word word, ptrdiff_t first, size_t words);
