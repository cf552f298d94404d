#define _GNU_SOURCE
#include "gevent_monitor_thread.h"

#include <errno.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>

#include "gevent_fork.h"
#include "gevent_futex.h"

// MARK: sections

// Monitors of several hubs can be in sections at the same time; a fork excludes them all. A waiting fork has priority
// over threads that enter a section, so that a busy monitor cannot starve it.
#define SECTIONS_INITIALIZER PTHREAD_RWLOCK_WRITER_NONRECURSIVE_INITIALIZER_NP
static pthread_rwlock_t sections = SECTIONS_INITIALIZER;

/// Whether this thread is in a section, because a function of a monitor may itself fork.
static __thread bool is_in_section = false;

static void enter_section(void) {
    pthread_rwlock_rdlock(&sections);
    is_in_section = true;
}

static void leave_section(void) {
    is_in_section = false;
    pthread_rwlock_unlock(&sections);
}

static void before_fork(void) {
    if (is_in_section) pthread_rwlock_unlock(&sections);
    pthread_rwlock_wrlock(&sections);
}

static void after_fork_in_parent(void) {
    pthread_rwlock_unlock(&sections);
    if (is_in_section) pthread_rwlock_rdlock(&sections);
}

static void after_fork_in_child(void) {
    // Reset, because threads that do not exist in the child may have been waiting for the lock.
    sections = (pthread_rwlock_t)SECTIONS_INITIALIZER;
    if (is_in_section) pthread_rwlock_rdlock(&sections);
}

// MARK: the bell

struct gevent_bell {
    uint32_t is_rung;  // whether it was rung since the thread last checked
};

gevent_bell *gevent_bell_create(void) {
    gevent_bell *bell = calloc(1, sizeof *bell);
    if (!bell) {
        fputs("gevent: out of memory for a monitor\n", stderr);
        abort();
    }
    return bell;
}

void gevent_bell_destroy(gevent_bell *bell) { free(bell); }

void gevent_bell_ring(gevent_bell *bell) {
    // Release: the thread clears the word with acquire, and then sees all changes made before the ring.
    __atomic_store_n(&bell->is_rung, 1, __ATOMIC_RELEASE);
    gevent_futex_wake(&bell->is_rung);
}

/// Waits until `moment`, or until the bell rings. A ring since the last call counts, so a change during the thread's
/// step is not missed.
static void wait_for_ring(gevent_bell *bell, int64_t moment) {
    while (!__atomic_exchange_n(&bell->is_rung, 0, __ATOMIC_ACQUIRE)) {
        if (gevent_futex_wait(&bell->is_rung, 0, moment) == ETIMEDOUT) return;
    }
}

// MARK: the thread

typedef struct thread_arguments {
    gevent_bell *bell;
    void *owner;
    gevent_monitor_functions functions;
} thread_arguments;

static void *run(void *argument) {
    thread_arguments arguments = *(thread_arguments *)argument;
    free(argument);
    for (;;) {
        enter_section();
        int64_t next = arguments.functions.step(arguments.owner);
        leave_section();
        if (next == GEVENT_STEP_NEVER) break;
        wait_for_ring(arguments.bell, next);
    }
    enter_section();
    arguments.functions.end(arguments.owner);
    leave_section();
    return NULL;
}

int gevent_monitor_thread_start(
    pthread_t *thread, gevent_bell *bell, void *owner, gevent_monitor_functions functions) {
    thread_arguments *arguments = malloc(sizeof *arguments);
    if (!arguments) return ENOMEM;
    *arguments = (thread_arguments){bell, owner, functions};
    sigset_t all, before;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    int error = pthread_create(thread, NULL, run, arguments);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    if (error) {
        free(arguments);
        return error;
    }
    // Named by this thread, so that a fork right afterwards already recognizes it as a monitor's.
    pthread_setname_np(*thread, GEVENT_MONITOR_THREAD);
    return 0;
}

__attribute__((constructor(GEVENT_FORK_MONITORS))) static void register_fork_handlers(void) {
    pthread_atfork(before_fork, after_fork_in_parent, after_fork_in_child);
}
