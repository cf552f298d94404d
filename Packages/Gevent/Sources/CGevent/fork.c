#define _GNU_SOURCE
#include "gevent_fork.h"

#include <dirent.h>
#include <fcntl.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "gevent_hub.h"
#include "gevent_monitor.h"
#include "gevent_monitor_thread.h"
#include "gevent_processes.h"
#include "gevent_signals.h"

struct gevent_mailbox_lock {
    pthread_mutex_t mutex;
    _Atomic uint32_t process;  // the generation of the process that contains the hub's thread
};

/// The generation of this process: the number of forks since the first process with a hub.
static _Atomic uint32_t this_process = 0;

gevent_mailbox_lock *gevent_mailbox_lock_create(void) {
    gevent_mailbox_lock *lock = malloc(sizeof *lock);
    if (!lock) {
        fputs("gevent: out of memory for a mailbox\n", stderr);
        abort();
    }
    pthread_mutex_init(&lock->mutex, NULL);
    atomic_init(&lock->process, atomic_load(&this_process));
    return lock;
}

void gevent_mailbox_lock_destroy(gevent_mailbox_lock *lock) {
    pthread_mutex_destroy(&lock->mutex);
    free(lock);
}

bool gevent_mailbox_lock_acquire(gevent_mailbox_lock *lock) {
    // Checked first: in a child, the lock of another thread's hub may be locked by a thread that does not exist there.
    if (atomic_load_explicit(&lock->process, memory_order_relaxed) !=
        atomic_load_explicit(&this_process, memory_order_relaxed))
        return false;
    pthread_mutex_lock(&lock->mutex);
    return true;
}

void gevent_mailbox_lock_release(gevent_mailbox_lock *lock) { pthread_mutex_unlock(&lock->mutex); }

static gevent_mailbox_lock *current_hub_lock(void) {
    gevent_hub *hub = gevent_this_thread_hub;
    return hub ? hub->mailbox_lock : NULL;
}

static void before_fork(void) {
    gevent_mailbox_lock *lock = current_hub_lock();
    if (lock) pthread_mutex_lock(&lock->mutex);
}

static void after_fork_in_parent(void) {
    gevent_mailbox_lock *lock = current_hub_lock();
    if (lock) pthread_mutex_unlock(&lock->mutex);
}

static void after_fork_in_child(void) {
    // Only this thread and its hub exist in the child. The hub checks the flag before it polls and before it registers
    // a descriptor, because the loop shares its kernel objects with the parent until it is repaired.
    uint32_t process = atomic_fetch_add(&this_process, 1) + 1;
    gevent_hub *hub = gevent_this_thread_hub;
    if (hub) hub->is_forked = true;
    gevent_mailbox_lock *lock = current_hub_lock();
    if (lock) {
        atomic_store(&lock->process, process);
        pthread_mutex_unlock(&lock->mutex);
    }
}

__attribute__((constructor(GEVENT_FORK_MAILBOX))) static void register_fork_handlers(void) {
    pthread_atfork(before_fork, after_fork_in_parent, after_fork_in_child);
}

static bool is_monitor(int tasks, const char *number) {
    char path[64], name[sizeof GEVENT_MONITOR_THREAD] = {0};
    snprintf(path, sizeof path, "%.16s/comm", number);
    int file = openat(tasks, path, O_RDONLY | O_CLOEXEC);
    // The thread has ended meanwhile.
    if (file < 0) return true;
    ssize_t length = read(file, name, sizeof name - 1);
    close(file);
    return length == sizeof name - 1 && strcmp(name, GEVENT_MONITOR_THREAD) == 0;
}

int gevent_other_threads(void) {
    DIR *tasks = opendir("/proc/self/task");
    if (!tasks) return 0;
    int count = 0;
    for (struct dirent *task; (task = readdir(tasks));) {
        if (task->d_name[0] == '.' || atoi(task->d_name) == gevent_thread_number()) continue;
        if (!is_monitor(dirfd(tasks), task->d_name)) count++;
    }
    closedir(tasks);
    return count;
}
