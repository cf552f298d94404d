#pragma once

// What Swift does not import from <ev.h>: its macros. And what it needs besides.

// By path: SwiftPM puts the folder of a system library on nobody's search path.
#include "../../CLibev/CLibev.h"
#include <stdbool.h>
#include <stdint.h>
#include <time.h>

#ifdef __cplusplus
extern "C" {
#endif

/// One watcher of libev's, with what has to be known when it fires.
///
/// libev keeps its address while it is started. `watcher.data` belongs to whoever started it.
struct gevent_libev_slot {
    /// First, so that the watcher's address is the slot's.
    ev_io watcher;
    /// The next one that has changed since the last poll.
    struct gevent_libev_slot *next_changed;
    uint32_t generation;
    bool is_changed;
};

typedef void (*gevent_libev_callback)(struct ev_loop *loop, ev_io *watcher, int events);

/// `ev_init`: once for each watcher, before anything else.
static inline void gevent_libev_init(ev_io *watcher, gevent_libev_callback callback, void *data) {
    ev_init(watcher, callback);
    watcher->data = data;
}

typedef void (*gevent_libev_fork_callback)(struct ev_loop *loop, ev_fork *watcher, int events);

/// `ev_fork_init`.
static inline void gevent_libev_fork_init(ev_fork *watcher, gevent_libev_fork_callback callback, void *data) {
    ev_fork_init(watcher, callback);
    watcher->data = data;
}

/// Whether a watcher is started: `ev_is_active`.
static inline bool gevent_libev_is_started(const ev_io *watcher) { return ev_is_active(watcher); }

/// `ev_io_set`, on a watcher that is stopped. It also tells libev that the number may be another file by now.
static inline void gevent_libev_set(ev_io *watcher, int fd, int events) { ev_io_set(watcher, fd, events); }

/// Nanoseconds of CLOCK_MONOTONIC. libev has only seconds of it, as a `double`, and does not hand them out.
static inline int64_t gevent_libev_now(void) {
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return (int64_t)time.tv_sec * 1000000000 + time.tv_nsec;
}

/// A new epoll descriptor for `gevent_libev_check`, or a negated errno.
int gevent_libev_probe(void);

/// 0 if the kernel can poll the descriptor; EBADF if it is not open, EPERM if it is of a kind that cannot be polled.
int gevent_libev_check(int probe, int fd);

/// The variable LIBEV_FLAGS as libev would see it, which is not at all in a program with raised privileges; or NULL.
const char *gevent_libev_flags(void);

#ifdef __cplusplus
}
#endif
