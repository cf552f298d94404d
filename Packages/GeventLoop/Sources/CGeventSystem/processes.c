#define _GNU_SOURCE
#include "gevent_processes.h"

#include <errno.h>
#include <signal.h>
#include <stddef.h>
#include <sys/auxv.h>
#include <sys/syscall.h>
#include <sys/types.h>
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

int gevent_fork_for_seconds(unsigned seconds) {
    pid_t child = fork();
    if (child < 0) return -errno;
    if (child == 0) {
        // SIGALRM turns a hang of the child into a failure in the parent. A test framework may have set a handler for
        // the signal, and the worker threads of libdispatch block it.
        signal(SIGALRM, SIG_DFL);
        sigset_t alarms;
        sigemptyset(&alarms);
        sigaddset(&alarms, SIGALRM);
        pthread_sigmask(SIG_UNBLOCK, &alarms, NULL);
        alarm(seconds);
    }
    return child;
}

_Noreturn void gevent_exit(int code) { _exit(code); }

int gevent_wait_for_exit(int child) {
    int status;
    while (waitpid(child, &status, 0) < 0) {
        if (errno != EINTR) return -errno;
    }
    return WIFEXITED(status) ? WEXITSTATUS(status) : 256 + WTERMSIG(status);
}
