#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/// A function that calls `LoopBackend.register(_:)` for one backend.
typedef void (*gevent_loop_registrar)(void);

/// Remembers a backend that is linked into this program.
///
/// Meant for a C `__attribute__((constructor))`: it only stores the pointer, so it is safe before `main`, before the
/// Swift runtime has run anything, and from a library loaded later on any thread. The registrar itself runs when the
/// list of linked loops is next asked for.
void gevent_loop_backend_linked(gevent_loop_registrar registrar);

/// Calls every registrar stored since the last call, oldest first.
///
/// While they run, `gevent_loop_is_collecting` is true on this thread. Calls must not overlap; the Swift side holds a
/// lock around it.
void gevent_loop_run_registrars(void);

/// Whether this thread is inside `gevent_loop_run_registrars`.
bool gevent_loop_is_collecting(void);

/// Writes "EBADF (Bad file descriptor)" or what the C library has of it; always terminates the text.
void gevent_loop_describe_errno(int code, char *text, size_t capacity);

/// The value of an environment variable; null if it is not set, or if the program runs with privileges that its caller
/// does not have (AT_SECURE: set-user-ID, set-group-ID, file capabilities). There the caller must not choose what the
/// program opens or prints.
const char *gevent_loop_environment(const char *name);

/// The kernel's number of this thread, as `top -H` and debuggers show it.
int gevent_loop_thread_id(void);

// What loops on a kernel are made of. Functions that fail return the negated errno.

/// A new non-blocking eventfd.
int gevent_loop_eventfd(void);

/// A new non-blocking timerfd on CLOCK_MONOTONIC, not set.
int gevent_loop_timerfd(void);

/// Sets a timerfd to an instant of its clock in nanoseconds; 0 stops it. What has expired before is forgotten.
int gevent_loop_set_timer(int fd, int64_t nanoseconds);

/// Puts what is behind one descriptor behind another one's number, and closes the first.
int gevent_loop_replace(int fd, int with);

#ifdef __cplusplus
}
#endif
