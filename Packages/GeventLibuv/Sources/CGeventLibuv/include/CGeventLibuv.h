#pragma once

// What libuv does not tell, and what it would rather abort over than tell.

// By path: SwiftPM puts the folder of a system library on nobody's search path.
#include "../../CLibuv/CLibuv.h"
#include <stdbool.h>
#include <stdint.h>

/// One poll handle of libuv's, with what has to be known when it fires.
///
/// libuv keeps its address until the callback of `uv_close`, and only that may free it.
struct gevent_libuv_slot {
    /// First, so that the handle's address is the slot's.
    uv_poll_t handle;
    /// The next one that has changed since the last poll.
    struct gevent_libuv_slot *next_changed __attribute__((swift_name("nextChanged")));
    int fd;
    uint32_t generation;
    /// Which poll reported it last.
    uint64_t reported;
    /// The bits of `Readiness`; 0 while nothing is watched.
    uint8_t interest;
    bool is_changed __attribute__((swift_name("isChanged")));
    /// The kernel refused it when it was confirmed. True until it is confirmed again.
    bool has_failed;
    /// The number changed hands without a word to us, so the kernel may still watch the file it was before.
    bool is_doubtful;
};

/// `uv_poll_init`, but the file stays blocking if it was. 0 or a negated errno.
int gevent_libuv_init(uv_loop_t *loop, uv_poll_t *handle, int fd);

/// Puts the descriptor into the kernel's set, as libuv will at its next run. 0 or an errno.
int gevent_libuv_add(const uv_loop_t *loop, int fd, uint8_t interest);

/// Puts everything that libuv is going to register into the kernel's set. 0 or the errno of the first that failed.
int gevent_libuv_add_all(const uv_loop_t *loop);

/// 0 if the kernel's set still has the file that was put into it, else an errno.
int gevent_libuv_confirm(const uv_loop_t *loop, int fd, uint8_t interest);

/// Takes the descriptor out of the kernel's set. 0 or an errno: it was closed meanwhile, and perhaps opened again.
int gevent_libuv_remove(const uv_loop_t *loop, int fd);

/// Whether the file is ready for any of it now, by its own account.
bool gevent_libuv_is_ready(int fd, uint8_t interest);

/// What the kernel reports of a descriptor: the bits of `Readiness`.
struct gevent_libuv_event {
    int fd;
    uint8_t readiness;
};

/// Asks the kernel what is ready in libuv's set, without waiting and without libuv. Returns how many events there are,
/// at most `capacity`, which is at most 128; 0 also if the kernel refuses.
int gevent_libuv_take(const uv_loop_t *loop, struct gevent_libuv_event *events, int capacity);
