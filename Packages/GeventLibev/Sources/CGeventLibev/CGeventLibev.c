#define _GNU_SOURCE
#include "CGeventLibev.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <time.h>

#include "gevent_descriptors.h"

int gevent_libev_check(int probe, int fd) {
    int error = gevent_check_pollable(probe, fd);
    if (error != 0) {
        return error;
    }
    // Asks whether `fd` watches the probe: for any file that is not an epoll descriptor the kernel reports EINVAL.
    struct epoll_event event = {.events = 0};
    if (epoll_ctl(fd, EPOLL_CTL_MOD, probe, &event) < 0 && errno == EINVAL) {
        return 0;
    }
    return gevent_libev_try(probe, fd);
}

int gevent_libev_try(int probe, int fd) {
    struct epoll_event event = {.events = EPOLLIN};
    if (epoll_ctl(probe, EPOLL_CTL_ADD, fd, &event) < 0) {
        return errno;
    }
    epoll_ctl(probe, EPOLL_CTL_DEL, fd, &event);
    return 0;
}

// The record of failures of the current run on this thread; NULL outside of `gevent_libev_run`.
static __thread struct gevent_libev_failure *current = NULL;

// libev retries calls that create kernel objects until they succeed, and returns from a wait that failed.
static void on_failure(const char *message) {
    int code = errno;
    enum { LONGEST_RETRY = 100 };
    if (current == NULL || current->count == LONGEST_RETRY) {
        // libev's default behaviour.
        fprintf(stderr, "%s: %s\n", message, strerror(code));
        abort();
    }
    current->code = code;
    current->message = message;
    current->count++;
    if (current->count > 1) {
        nanosleep(&(struct timespec){.tv_nsec = 10000000}, NULL);
    }
}

void gevent_libev_record_failures(void) { ev_set_syserr_cb(on_failure); }

void gevent_libev_run(struct ev_loop *loop, int flags, struct gevent_libev_failure *failure) {
    // A callback of an adopted loop may run another loop.
    struct gevent_libev_failure *outer = current;
    current = failure;
    ev_run(loop, flags);
    current = outer;
}

const char *gevent_libev_flags(void) { return secure_getenv("LIBEV_FLAGS"); }
