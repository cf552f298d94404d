#define _GNU_SOURCE
#include "CGeventLibev.h"
#include "CGeventLoop.h"

#include <errno.h>
#include <stdlib.h>
#include <sys/epoll.h>

// Defined in Swift (Registration.swift). Declared here and not in the header, where Swift would import a second one.
extern void gevent_libev_register(void);

// Linking this backend is all it takes to have it. The constructor runs before `main` and before anything may be
// assumed of the Swift runtime, so it only stores the pointer.
__attribute__((constructor)) static void gevent_libev_linked(void) {
    gevent_loop_backend_linked(gevent_libev_register);
}

int gevent_libev_probe(void) {
    int result = epoll_create1(EPOLL_CLOEXEC);
    return result < 0 ? -errno : result;
}

int gevent_libev_check(int probe, int fd) {
    // Changing what is not in the set changes nothing, but the kernel looks at the descriptor first.
    struct epoll_event event = {.events = 0};
    if (epoll_ctl(probe, EPOLL_CTL_MOD, fd, &event) == 0 || errno == ENOENT) {
        return 0;
    }
    return errno;
}

const char *gevent_libev_flags(void) { return secure_getenv("LIBEV_FLAGS"); }
