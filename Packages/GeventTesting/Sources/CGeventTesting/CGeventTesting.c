#define _GNU_SOURCE
#include "CGeventTesting.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <sys/epoll.h>
#include <sys/types.h>
#include <sys/wait.h>
#include <unistd.h>

int gevent_testing_pipe(int ends[2]) { return pipe2(ends, O_NONBLOCK | O_CLOEXEC) < 0 ? -errno : 0; }

int gevent_testing_replace(int fd, int with) { return dup3(with, fd, O_CLOEXEC) < 0 ? -errno : 0; }

int gevent_testing_open_path(const char *path) { return open(path, O_PATH | O_CLOEXEC); }

int gevent_testing_check_pollable(int fd) {
    // Before a new descriptor takes the number of one that is not open.
    if (fcntl(fd, F_GETFD) < 0) {
        return errno;
    }
    int probe = epoll_create1(EPOLL_CLOEXEC);
    if (probe < 0) {
        return errno;
    }
    // Changing what is not in the set changes nothing, but the kernel looks at the descriptor first.
    struct epoll_event event = {.events = 0};
    int error = epoll_ctl(probe, EPOLL_CTL_MOD, fd, &event) < 0 ? errno : 0;
    close(probe);
    return error == ENOENT ? 0 : error;
}

int gevent_testing_epoll_watching(int fd) {
    int epoll = epoll_create1(EPOLL_CLOEXEC);
    if (epoll < 0) {
        return -errno;
    }
    struct epoll_event event = {.events = EPOLLIN};
    if (epoll_ctl(epoll, EPOLL_CTL_ADD, fd, &event) < 0) {
        int error = errno;
        close(epoll);
        // Older kernels say EINVAL of what is nested too deep.
        return error == EINVAL ? -ELOOP : -error;
    }
    return epoll;
}

int gevent_testing_fork(unsigned child_seconds) {
    pid_t child = fork();
    if (child < 0) {
        return -errno;
    }
    if (child == 0) {
        // A hang in the child becomes a failure in the parent. A test framework may have caught the signal, and the
        // worker threads of libdispatch block it.
        signal(SIGALRM, SIG_DFL);
        sigset_t alarms;
        sigemptyset(&alarms);
        sigaddset(&alarms, SIGALRM);
        pthread_sigmask(SIG_UNBLOCK, &alarms, NULL);
        alarm(child_seconds);
    }
    return child;
}

_Noreturn void gevent_testing_exit(int code) { _exit(code); }

int gevent_testing_wait(int child) {
    int status;
    while (waitpid(child, &status, 0) < 0) {
        if (errno != EINTR) {
            return -errno;
        }
    }
    return WIFEXITED(status) ? WEXITSTATUS(status) : 256 + WTERMSIG(status);
}
