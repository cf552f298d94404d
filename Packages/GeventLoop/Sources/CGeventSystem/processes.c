#define _GNU_SOURCE
#include "gevent_processes.h"

#include <errno.h>
#include <stddef.h>
#include <sys/auxv.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

// Some C libraries that we support lack the wrapper, and possibly the constant, which is the same on every
// architecture.
#ifndef SYS_pidfd_open
#define SYS_pidfd_open 434
#endif

const char *gevent_environment(int index) { return environ && !getauxval(AT_SECURE) ? environ[index] : NULL; }

// By number, because some C libraries that we support lack the wrapper.
int gevent_thread_number(void) { return (int)syscall(SYS_gettid); }

int gevent_pidfd_open(int pid) {
    // The kernel always sets close-on-exec on it.
    int result = (int)syscall(SYS_pidfd_open, pid, 0);
    return result < 0 ? -errno : result;
}

int gevent_child_has_ended(int pid) {
    siginfo_t info = {0};
    if (waitid(P_PID, (id_t)pid, &info, WEXITED | WNOHANG | WNOWAIT) != 0) return -errno;
    return info.si_pid == pid;
}

int gevent_fork(void) {
    pid_t pid = fork();
    return pid < 0 ? -errno : pid;
}
