#define _GNU_SOURCE
#include "gevent_children.h"

#include <errno.h>
#include <sys/syscall.h>
#include <sys/types.h>
#include <sys/wait.h>
#include <unistd.h>

// The C library's own wrapper is younger than some that we run on, and so may be its name for the number, which is the
// same on every architecture.
#ifndef SYS_pidfd_open
#define SYS_pidfd_open 434
#endif

int gevent_pidfd_open(int pid) {
    // The kernel sets close-on-exec by itself.
    int result = (int)syscall(SYS_pidfd_open, pid, 0);
    return result < 0 ? -errno : result;
}

int gevent_child_has_ended(int pid) {
    siginfo_t info = {0};
    if (waitid(P_PID, (id_t)pid, &info, WEXITED | WNOHANG | WNOWAIT) != 0) return -errno;
    return info.si_pid == pid;
}
