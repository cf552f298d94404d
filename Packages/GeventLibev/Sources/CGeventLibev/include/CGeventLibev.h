#pragma once

// The macros of <ev.h>, which Swift does not import, and helper functions.

// By path, because SwiftPM does not add the folder of a system library to the search path.
#include "../../CLibev/CLibev.h"
#include <stdbool.h>
#include <stdint.h>

/// A libev watcher with the data that its callback needs.
///
/// libev keeps its address while it is started. `watcher.data` belongs to the code that started it.
struct gevent_libev_slot {
    /// The first member, so that the watcher's address is the slot's.
    ev_io watcher;
    /// The next slot that has changed since the last poll.
    struct gevent_libev_slot *next_changed __attribute__((swift_name("nextChanged")));
    uint32_t generation;
    bool is_changed __attribute__((swift_name("isChanged")));
    /// True if libev failed to register the watcher and stopped it, until it is registered again.
    bool has_failed;
    /// True if the registration failed and the core has not been notified yet.
    bool is_lost;
};

typedef void (*gevent_libev_callback)(struct ev_loop *loop, ev_io *watcher, int events);

/// Calls `ev_init`, once for each watcher, before any other call.
static inline void gevent_libev_init(ev_io *watcher, gevent_libev_callback callback, void *data) {
    ev_init(watcher, callback);
    watcher->data = data;
}

typedef void (*gevent_libev_fork_callback)(struct ev_loop *loop, ev_fork *watcher, int events);

/// Calls `ev_fork_init`.
static inline void gevent_libev_fork_init(ev_fork *watcher, gevent_libev_fork_callback callback, void *data) {
    ev_fork_init(watcher, callback);
    watcher->data = data;
}

/// Returns whether a watcher is started, by `ev_is_active`.
static inline bool gevent_libev_is_started(const ev_io *watcher) { return ev_is_active(watcher); }

/// Calls `ev_io_set` on a stopped watcher. This also tells libev that the number may refer to another file.
static inline void gevent_libev_set(ev_io *watcher, int fd, int events) { ev_io_set(watcher, fd, events); }

typedef void (*gevent_libev_idle_callback)(struct ev_loop *loop, ev_idle *watcher, int events);

/// Calls `ev_idle_init`.
static inline void gevent_libev_idle_init(ev_idle *watcher, gevent_libev_idle_callback callback, void *data) {
    ev_init(watcher, callback);
    watcher->data = data;
}

/// Returns the result of `gevent_check_pollable`, or ELOOP for an epoll descriptor in which others are nested so deep
/// that no other may hold it.
int gevent_libev_check(int probe, int fd);

/// Returns 0 if the kernel can watch the descriptor now, else an errno, which may stand for a lack of memory or
/// watches.
int gevent_libev_try(int probe, int fd);

/// A failed system call of libev, on which libev would have ended the process.
struct gevent_libev_failure {
    /// The errno, or 0 if no call failed.
    int code;
    /// libev's name for the call, such as "(libev) epoll_wait".
    const char *message;
    unsigned count;
};

/// Makes `gevent_libev_run` record failures. This sets libev's only callback for failures, for the whole process.
void gevent_libev_record_failures(void);

/// Calls `ev_run`. A failed wait returns and is recorded; without `gevent_libev_record_failures` it ends the process.
void gevent_libev_run(struct ev_loop *loop, int flags, struct gevent_libev_failure *failure);

/// Returns the variable LIBEV_FLAGS as libev would read it, or NULL. In a program with raised privileges it is NULL.
const char *gevent_libev_flags(void);
