#pragma once

// Functions for facts that libuv does not report, and for errors on which it would abort.

// By path, because SwiftPM does not add the folder of a system library to the search path.
#include "../../CLibuv/CLibuv.h"
#include <stdbool.h>
#include <stdint.h>

/// A libuv poll handle with the data that its callback needs.
///
/// libuv keeps its address until the callback of `uv_close`, and only that callback may free it.
struct gevent_libuv_slot {
    /// The first member, so that the handle's address is the slot's.
    uv_poll_t handle;
    /// The next slot that has changed since the last poll.
    struct gevent_libuv_slot *next_changed __attribute__((swift_name("nextChanged")));
    int fd;
    uint32_t generation;
    /// The number of the last poll that reported it.
    uint64_t reported;
    /// The bits of `Readiness`; 0 while the descriptor is not watched.
    uint8_t interest;
    bool is_changed __attribute__((swift_name("isChanged")));
    /// True if the kernel rejected the registration when it was confirmed, until it is confirmed again.
    bool has_failed;
    /// True if the number was reused without notice, so the kernel may still watch its former file.
    bool is_doubtful;
};

/// Calls `uv_poll_init`, but keeps a blocking file blocking. Returns 0 or a negated errno.
int gevent_libuv_init(uv_loop_t *loop, uv_poll_t *handle, int fd);

/// Adds the descriptor to the kernel's set, as libuv will at its next run. Returns 0 or an errno.
int gevent_libuv_add(const uv_loop_t *loop, int fd, uint8_t interest);

/// Adds every descriptor that libuv will register to the kernel's set. Returns 0 or the errno of the first failure.
int gevent_libuv_add_all(const uv_loop_t *loop);

/// Returns 0 if the kernel's set still has the file that was added to it, else an errno.
int gevent_libuv_confirm(const uv_loop_t *loop, int fd, uint8_t interest);

/// Removes the descriptor from the kernel's set. Returns 0, or an errno if it was closed meanwhile, and perhaps opened
/// again.
int gevent_libuv_remove(const uv_loop_t *loop, int fd);

/// Returns whether poll(2) reports the file as ready for any part of the interest.
bool gevent_libuv_is_ready(int fd, uint8_t interest);

/// A kernel event of a descriptor, with the bits of `Readiness`.
struct gevent_libuv_event {
    int fd;
    uint8_t readiness;
};

/// Gets the ready descriptors of libuv's set from the kernel, without waiting and without libuv. Returns the number of
/// events, at most `capacity`, which is at most 128; also returns 0 if the kernel refuses.
int gevent_libuv_take(const uv_loop_t *loop, struct gevent_libuv_event *events, int capacity);
