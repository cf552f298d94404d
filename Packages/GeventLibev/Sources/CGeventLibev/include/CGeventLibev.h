#pragma once

// What Swift does not import from <ev.h>: its macros. And what it needs besides.

// By path: SwiftPM puts the folder of a system library on nobody's search path.
#include "../../CLibev/CLibev.h"
#include <stdbool.h>
#include <stdint.h>

/// One watcher of libev's, with what has to be known when it fires.
///
/// libev keeps its address while it is started. `watcher.data` belongs to whoever started it.
struct gevent_libev_slot {
    /// First, so that the watcher's address is the slot's.
    ev_io watcher;
    /// The next one that has changed since the last poll.
    struct gevent_libev_slot *next_changed __attribute__((swift_name("nextChanged")));
    uint32_t generation;
    bool is_changed __attribute__((swift_name("isChanged")));
    /// libev could not register it and has stopped it. True until it is registered again.
    bool has_failed;
    /// The same, and the core has not been told yet.
    bool is_lost;
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

typedef void (*gevent_libev_idle_callback)(struct ev_loop *loop, ev_idle *watcher, int events);

/// `ev_idle_init`.
static inline void gevent_libev_idle_init(ev_idle *watcher, gevent_libev_idle_callback callback, void *data) {
    ev_init(watcher, callback);
    watcher->data = data;
}

/// The result of `gevent_check_pollable`, and ELOOP for an epoll descriptor in which others are nested so deep that no
/// other may hold it.
int gevent_libev_check(int probe, int fd);

/// 0 if the kernel can watch the descriptor now, else why not, also for want of memory or watches.
int gevent_libev_try(int probe, int fd);

/// A system call of libev's that failed, in which libev would have ended the process.
struct gevent_libev_failure {
    /// 0 if none failed.
    int code;
    /// As libev names it, such as "(libev) epoll_wait".
    const char *message;
    unsigned count;
};

/// Has failures noted during `gevent_libev_run`. libev has one callback for that in the whole process.
void gevent_libev_note_failures(void);

/// `ev_run`. A failed wait returns, and is noted; without `gevent_libev_note_failures` it ends the process.
void gevent_libev_run(struct ev_loop *loop, int flags, struct gevent_libev_failure *failure);

/// The variable LIBEV_FLAGS as libev would see it, which is not at all in a program with raised privileges; or NULL.
const char *gevent_libev_flags(void);
