#include "CGeventLibuv.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <sys/epoll.h>

// The bits of `Readiness` in Swift.
enum { READ = 1, WRITE = 2 };

int gevent_libuv_init(uv_loop_t *loop, uv_poll_t *handle, int fd) {
    int flags = fcntl(fd, F_GETFL);
    if (flags < 0) {
        return -errno;
    }
    int result = uv_poll_init(loop, handle, fd);
    // libuv permanently makes the open file non-blocking, also for every process that shares it: standard input is
    // shared with the shell that continues after this process.
    if (!(flags & O_NONBLOCK)) {
        fcntl(fd, F_SETFL, flags);
    }
    return result;
}

static int control(const uv_loop_t *loop, int operation, int fd, uint8_t interest) {
    // The same values as in libuv's registration.
    struct epoll_event event = {
        .events = (interest & READ ? EPOLLIN : 0u) | (interest & WRITE ? EPOLLOUT : 0u), .data = {.fd = fd}};
    return epoll_ctl(uv_backend_fd(loop), operation, fd, &event) < 0 ? errno : 0;
}

int gevent_libuv_add(const uv_loop_t *loop, int fd, uint8_t interest) {
    int error = control(loop, EPOLL_CTL_ADD, fd, interest);
    return error == EEXIST ? 0 : error;
}

int gevent_libuv_add_all(const uv_loop_t *loop) {
    for (unsigned fd = 0; fd < loop->nwatchers; fd++) {
        const uv__io_t *watcher = loop->watchers[fd];
        // libuv stores the bits of poll(2), which equal those of epoll.
        if (watcher == NULL || watcher->pevents == 0 || watcher->events != 0) {
            continue;
        }
        struct epoll_event event = {.events = watcher->pevents, .data = {.fd = (int)fd}};
        if (epoll_ctl(uv_backend_fd(loop), EPOLL_CTL_ADD, (int)fd, &event) < 0 && errno != EEXIST) {
            return errno;
        }
    }
    return 0;
}

int gevent_libuv_confirm(const uv_loop_t *loop, int fd, uint8_t interest) {
    return control(loop, EPOLL_CTL_MOD, fd, interest);
}

int gevent_libuv_remove(const uv_loop_t *loop, int fd) { return control(loop, EPOLL_CTL_DEL, fd, 0); }

bool gevent_libuv_is_ready(int fd, uint8_t interest) {
    struct pollfd request = {
        .fd = fd, .events = (short)((interest & READ ? POLLIN : 0) | (interest & WRITE ? POLLOUT : 0))};
    return poll(&request, 1, 0) > 0;
}

int gevent_libuv_take(const uv_loop_t *loop, struct gevent_libuv_event *events, int capacity) {
    enum { MOST = 128 };
    struct epoll_event found[MOST];
    int count = epoll_wait(uv_backend_fd(loop), found, capacity < MOST ? capacity : MOST, 0);
    if (count < 0) {
        return 0;
    }
    for (int i = 0; i < count; i++) {
        uint32_t bits = found[i].events;
        bool has_failed = bits & (EPOLLERR | EPOLLHUP);
        events[i].fd = found[i].data.fd;
        events[i].readiness =
            (uint8_t)((bits & EPOLLIN || has_failed ? READ : 0) | (bits & EPOLLOUT || has_failed ? WRITE : 0));
    }
    return count;
}
