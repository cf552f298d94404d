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
    // Asked whether it watches the probe, every other kind of file answers that it is no epoll descriptor.
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

// What the run on this thread notes failures in; null outside of `gevent_libev_run`.
static __thread struct gevent_libev_failure *noted = NULL;

// libev retries what makes kernel objects until it works, and returns from a wait that failed.
static void on_failure(const char *message) {
    int code = errno;
    enum { LONGEST_RETRY = 100 };
    if (noted == NULL || noted->count == LONGEST_RETRY) {
        // As libev does by itself.
        fprintf(stderr, "%s: %s\n", message, strerror(code));
        abort();
    }
    noted->code = code;
    noted->message = message;
    noted->count++;
    if (noted->count > 1) {
        nanosleep(&(struct timespec){.tv_nsec = 10000000}, NULL);
    }
}

void gevent_libev_note_failures(void) { ev_set_syserr_cb(on_failure); }

void gevent_libev_run(struct ev_loop *loop, int flags, struct gevent_libev_failure *failure) {
    // A callback of an adopted loop may run another one.
    struct gevent_libev_failure *outer = noted;
    noted = failure;
    ev_run(loop, flags);
    noted = outer;
}

const char *gevent_libev_flags(void) { return secure_getenv("LIBEV_FLAGS"); }
