#define _GNU_SOURCE
#include "gevent_descriptors.h"

#include <errno.h>
#include <fcntl.h>
#include <stddef.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/timerfd.h>
#include <unistd.h>

static int result_of(int value) { return value < 0 ? -errno : value; }

int gevent_eventfd(void) { return result_of(eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC)); }

int gevent_timerfd(void) { return result_of(timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK | TFD_CLOEXEC)); }

int gevent_set_timer(int fd, int64_t nanoseconds) {
    struct itimerspec setting = {.it_value = {nanoseconds / 1000000000, nanoseconds % 1000000000}};
    return result_of(timerfd_settime(fd, TFD_TIMER_ABSTIME, &setting, NULL));
}

int gevent_epoll(void) { return result_of(epoll_create1(EPOLL_CLOEXEC)); }

int gevent_pipe(int ends[2]) { return result_of(pipe2(ends, O_NONBLOCK | O_CLOEXEC)); }

int gevent_replace(int fd, int with) {
    int result = result_of(dup3(with, fd, O_CLOEXEC));
    close(with);
    return result < 0 ? result : 0;
}

int gevent_open_path(const char *path) { return result_of(open(path, O_PATH | O_CLOEXEC)); }

int gevent_check_pollable(int probe, int fd) {
    // Modifying an entry that is not in the set changes nothing, but the kernel checks the descriptor first.
    struct epoll_event event = {.events = 0};
    return epoll_ctl(probe, EPOLL_CTL_MOD, fd, &event) == 0 || errno == ENOENT ? 0 : errno;
}
