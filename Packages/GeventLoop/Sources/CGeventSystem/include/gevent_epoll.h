// The epoll calls, for which Swift lacks variadic `syscall` and the packed `struct epoll_event` with its union. All are
// `static inline`, so that the poll loop in Swift is compiled as one function. Functions that fail return the negated
// errno.
#pragma once

#include <errno.h>
#include <limits.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/epoll.h>
#include <sys/syscall.h>
#include <unistd.h>

#ifndef SYS_epoll_pwait2
// The same number on every architecture; missing from headers older than Linux 5.11.
#define SYS_epoll_pwait2 441
#endif

/// `epoll_ctl`; `data` comes back with each event.
static inline int gevent_epoll_control(int epoll, int operation, int fd, uint32_t events, uint64_t data) {
    struct epoll_event event = {.events = events, .data = {.u64 = data}};
    return epoll_ctl(epoll, operation, fd, &event) < 0 ? -errno : 0;
}

/// Waits in nanoseconds, by epoll_pwait2 (Linux 5.11). A negative timeout waits for ever.
static inline int gevent_epoll_wait_nanoseconds(
    int epoll, struct epoll_event *events, int capacity, int64_t nanoseconds) {
    if (nanoseconds <= 0) {
        // No time to pass: the older call has one argument less to copy from user space.
        int count = epoll_wait(epoll, events, capacity, nanoseconds < 0 ? -1 : 0);
        return count < 0 ? -errno : count;
    }
    // The kernel's own layout, which has 64-bit fields also where `struct timespec` has not.
    struct {
        int64_t seconds;
        int64_t nanoseconds;
    } timeout = {nanoseconds / 1000000000, nanoseconds % 1000000000};
    int count = (int)syscall(SYS_epoll_pwait2, epoll, events, capacity, &timeout, NULL, (size_t)0);
    return count < 0 ? -errno : count;
}

/// Waits in milliseconds, rounded up, on kernels without epoll_pwait2. A negative timeout waits for ever.
static inline int gevent_epoll_wait_milliseconds(
    int epoll, struct epoll_event *events, int capacity, int64_t nanoseconds) {
    int timeout = -1;
    if (nanoseconds >= 0) {
        int64_t milliseconds = nanoseconds / 1000000 + (nanoseconds % 1000000 != 0);
        // 24 days are the most that fit; returning early is allowed, returning late is not.
        timeout = milliseconds > INT_MAX ? INT_MAX : (int)milliseconds;
    }
    int count = epoll_wait(epoll, events, capacity, timeout);
    return count < 0 ? -errno : count;
}

/// 0 if the kernel has epoll_pwait2 and lets us call it, else the negated errno.
static inline int gevent_epoll_probe_nanoseconds(int epoll) {
    struct epoll_event event;
    struct {
        int64_t seconds;
        int64_t nanoseconds;
    } timeout = {0, 0};
    return syscall(SYS_epoll_pwait2, epoll, &event, 1, &timeout, NULL, (size_t)0) < 0 ? -errno : 0;
}

/// The `data` of an event.
static inline uint64_t gevent_epoll_data(const struct epoll_event *event) { return event->data.u64; }

/// The `events` of an event.
static inline uint32_t gevent_epoll_events(const struct epoll_event *event) { return event->events; }
