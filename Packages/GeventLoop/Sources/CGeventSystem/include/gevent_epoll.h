// The epoll calls. Swift cannot import the variadic `syscall` and the packed `struct epoll_event` with its union. All
// functions are `static inline`, so that the poll loop in Swift is compiled as one function. Functions that fail return
// the negated errno.
#pragma once

#include <errno.h>
#include <limits.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/epoll.h>
#include <sys/syscall.h>
#include <unistd.h>

#ifndef SYS_epoll_pwait2
// The number is the same on every architecture; headers older than Linux 5.11 lack it.
#define SYS_epoll_pwait2 441
#endif

/// Calls `epoll_ctl`. `data` is reported with each event.
static inline int gevent_epoll_control(int epoll, int operation, int fd, uint32_t events, uint64_t data) {
    struct epoll_event event = {.events = events, .data = {.u64 = data}};
    return epoll_ctl(epoll, operation, fd, &event) < 0 ? -errno : 0;
}

/// Waits with a timeout in nanoseconds, by epoll_pwait2 (Linux 5.11). A negative timeout waits for ever.
static inline int gevent_epoll_wait_nanoseconds(
    int epoll, struct epoll_event *events, int capacity, int64_t nanoseconds) {
    if (nanoseconds <= 0) {
        // Without a positive timeout, the older call suffices and has one argument less to copy from user space.
        int count = epoll_wait(epoll, events, capacity, nanoseconds < 0 ? -1 : 0);
        return count < 0 ? -errno : count;
    }
    // The kernel's layout: its fields are 64 bits wide even if those of `struct timespec` are not.
    struct {
        int64_t seconds;
        int64_t nanoseconds;
    } timeout = {nanoseconds / 1000000000, nanoseconds % 1000000000};
    int count = (int)syscall(SYS_epoll_pwait2, epoll, events, capacity, &timeout, NULL, (size_t)0);
    return count < 0 ? -errno : count;
}

/// Waits with a timeout rounded up to milliseconds, on kernels without epoll_pwait2. A negative timeout waits for ever.
static inline int gevent_epoll_wait_milliseconds(
    int epoll, struct epoll_event *events, int capacity, int64_t nanoseconds) {
    int timeout = -1;
    if (nanoseconds >= 0) {
        int64_t milliseconds = nanoseconds / 1000000 + (nanoseconds % 1000000 != 0);
        // The longest timeout is 24 days. Returning early is allowed, returning late is not.
        timeout = milliseconds > INT_MAX ? INT_MAX : (int)milliseconds;
    }
    int count = epoll_wait(epoll, events, capacity, timeout);
    return count < 0 ? -errno : count;
}

/// Returns 0 if the kernel has epoll_pwait2 and allows the call, else the negated errno.
static inline int gevent_epoll_probe_nanoseconds(int epoll) {
    struct epoll_event event;
    struct {
        int64_t seconds;
        int64_t nanoseconds;
    } timeout = {0, 0};
    return syscall(SYS_epoll_pwait2, epoll, &event, 1, &timeout, NULL, (size_t)0) < 0 ? -errno : 0;
}

/// Returns the `data` of an event.
static inline uint64_t gevent_epoll_data(const struct epoll_event *event) { return event->data.u64; }

/// Returns the `events` of an event.
static inline uint32_t gevent_epoll_events(const struct epoll_event *event) { return event->events; }
