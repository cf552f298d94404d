#define _GNU_SOURCE
#include "CGeventLoop.h"

#include <errno.h>
#include <fcntl.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/syscall.h>
#include <sys/timerfd.h>
#include <unistd.h>

// A lock-free stack of registrars. Constructors run before anything could have made a lock, and `dlopen` may run one on
// any thread at any time, so storing is one compare-and-swap and taking is one exchange of the whole list.
struct linked_backend {
    gevent_loop_registrar registrar;
    struct linked_backend *next;
};

static _Atomic(struct linked_backend *) newest = NULL;

static __thread bool collecting = false;

void gevent_loop_backend_linked(gevent_loop_registrar registrar) {
    struct linked_backend *node = malloc(sizeof *node);
    if (node == NULL) {
        // Out of memory before `main`: the program could not have started, and a backend that silently went missing
        // would be reported later as "not linked", which is a lie.
        abort();
    }
    node->registrar = registrar;
    node->next = atomic_load_explicit(&newest, memory_order_relaxed);
    // Release: whoever takes the list sees the node's fields.
    while (!atomic_compare_exchange_weak_explicit(
        &newest, &node->next, node, memory_order_release, memory_order_relaxed)) {
    }
}

void gevent_loop_run_registrars(void) {
    if (atomic_load_explicit(&newest, memory_order_relaxed) == NULL) {
        return;
    }
    struct linked_backend *taken = atomic_exchange_explicit(&newest, NULL, memory_order_acquire);
    struct linked_backend *oldest = NULL;
    while (taken != NULL) {
        struct linked_backend *next = taken->next;
        taken->next = oldest;
        oldest = taken;
        taken = next;
    }
    collecting = true;
    while (oldest != NULL) {
        struct linked_backend *next = oldest->next;
        oldest->registrar();
        free(oldest);
        oldest = next;
    }
    collecting = false;
}

// By number: the C library's own wrapper is younger than some that we run on.
const char *gevent_loop_environment(const char *name) { return secure_getenv(name); }

int gevent_loop_thread_id(void) { return (int)syscall(SYS_gettid); }

bool gevent_loop_is_collecting(void) { return collecting; }

void gevent_loop_describe_errno(int code, char *text, size_t capacity) {
#ifdef __GLIBC__
    const char *name = strerrorname_np(code);
    const char *description = strerrordesc_np(code);
    if (name != NULL && description != NULL) {
        snprintf(text, capacity, "%s (%s)", name, description);
        return;
    }
#endif
    snprintf(text, capacity, "errno %d", code);
}

int gevent_loop_eventfd(void) {
    int result = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
    return result < 0 ? -errno : result;
}

int gevent_loop_timerfd(void) {
    int result = timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK | TFD_CLOEXEC);
    return result < 0 ? -errno : result;
}

int gevent_loop_set_timer(int fd, int64_t nanoseconds) {
    struct itimerspec setting = {.it_value = {nanoseconds / 1000000000, nanoseconds % 1000000000}};
    return timerfd_settime(fd, TFD_TIMER_ABSTIME, &setting, NULL) < 0 ? -errno : 0;
}

int gevent_loop_replace(int fd, int with) {
    int result = dup3(with, fd, O_CLOEXEC);
    int error = errno;
    close(with);
    return result < 0 ? -error : 0;
}
