#define _GNU_SOURCE
#include "CCountInstructions.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdbool.h>
#include <stdlib.h>
#include <sys/ptrace.h>
#include <sys/wait.h>
#include <unistd.h>

#define VARIABLE "GEVENT_BENCHMARK_STEPPED"

// Signals from the counted program to the counter, which does not deliver them.
enum { BEGIN = SIGUSR1, END = SIGUSR2, REFUSED = 97 };

int count_instructions_is_on(void) { return getenv(VARIABLE) != NULL; }

void count_instructions_begin(void) { raise(BEGIN); }

void count_instructions_end(void) { raise(END); }

static _Noreturn void become_counted(char *const arguments[]) {
    if (ptrace(PTRACE_TRACEME, 0, NULL, NULL) != 0) _exit(REFUSED);
    int null = open("/dev/null", O_WRONLY | O_CLOEXEC);
    if (null >= 0) dup2(null, STDOUT_FILENO);
    setenv(VARIABLE, "1", 1);
    // Resolves all symbols now. Otherwise the first call of each function would include a symbol lookup.
    setenv("LD_BIND_NOW", "1", 1);
    raise(SIGSTOP);
    execv("/proc/self/exe", arguments);
    _exit(127);
}

/// Steps the thread until it signals the end. Returns the number of steps, or -1 if the thread ended before.
static int64_t steps_of(pid_t thread) {
    int64_t count = 0;
    int signal = 0, status;
    for (;;) {
        if (ptrace(PTRACE_SINGLESTEP, thread, NULL, (void *)(intptr_t)signal) != 0) return -1;
        while (waitpid(thread, &status, __WALL) < 0) {
            if (errno != EINTR) return -1;
        }
        if (!WIFSTOPPED(status)) return -1;
        signal = WSTOPSIG(status);
        if (signal == END) return count;
        // A step. ptrace's own events use this signal too, but do not occur in the stepped code.
        if (signal == SIGTRAP) {
            count++;
            signal = 0;
        }
    }
}

int64_t count_instructions_of(char *const arguments[]) {
    pid_t child = fork();
    if (child < 0) return -2;
    if (child == 0) become_counted(arguments);
    int64_t count = -1;
    int status;
    bool is_prepared = false;
    for (;;) {
        pid_t thread = waitpid(-1, &status, __WALL);
        if (thread < 0) {
            if (errno == EINTR) continue;
            return count;
        }
        if (!WIFSTOPPED(status)) {
            if (thread != child) continue;
            if (WIFEXITED(status) && WEXITSTATUS(status) == REFUSED) return -2;
            return WIFEXITED(status) && WEXITSTATUS(status) == 0 ? count : -1;
        }
        int signal = WSTOPSIG(status);
        if (!is_prepared) {
            // Its first stop. Threads that it makes are traced as well, and none outlives this process.
            long options = PTRACE_O_TRACECLONE | PTRACE_O_TRACEEXEC | PTRACE_O_EXITKILL;
            if (ptrace(PTRACE_SETOPTIONS, child, NULL, (void *)options) != 0) {
                kill(child, SIGKILL);
                return -2;
            }
            is_prepared = true;
            signal = 0;
        } else if (signal == BEGIN) {
            count = steps_of(thread);
            signal = 0;
        } else if (signal == SIGTRAP || signal == SIGSTOP) {
            // ptrace's events, and the first stop of a new thread.
            signal = 0;
        }
        ptrace(PTRACE_CONT, thread, NULL, (void *)(intptr_t)signal);
    }
}
