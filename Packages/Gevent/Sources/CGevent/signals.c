#define _GNU_SOURCE
#include "gevent_signals.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <unistd.h>

#include "gevent_clock.h"
#include "gevent_descriptors.h"
#include "gevent_fork.h"

struct gevent_signal_inbox {
    // Fields that the handler reads and writes.
    struct gevent_signal_inbox *next;  // set before the inbox is published, and never changed
    _Atomic int descriptor;            // -1 while the inbox has no owner
    _Atomic unsigned visitors;         // number of handlers that may be about to write to the descriptor
    _Atomic bool wanted[GEVENT_SIGNAL_COUNT];
    _Atomic uint32_t counts[GEVENT_SIGNAL_COUNT];
    _Atomic bool enforces_interrupt_limit;
    _Atomic int64_t interrupted_since;  // when the oldest pending SIGINT arrived

    // Fields that only the owner uses, or that the lock protects.
    bool is_used;
    pthread_t owner;
    bool was_blocked[GEVENT_SIGNAL_COUNT];
};

/// How long a SIGINT may be pending before the next one kills the process, in nanoseconds. Long enough for one Ctrl-C
/// to arrive twice: from the terminal, and from a parent that forwards it.
static const int64_t INTERRUPT_LIMIT = 1000000000;

// The list of inboxes. They are published at the head and never freed, so the handler can walk the list without a lock.
// A new hub reuses the inbox of a destroyed one, so there are only as many as hubs ever used signals at the same time.
static _Atomic(gevent_signal_inbox *) inboxes = NULL;

// Signal actions of the process change only under this lock, which no handler takes.
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static unsigned watching_inboxes[GEVENT_SIGNAL_COUNT];
static struct sigaction previous[GEVENT_SIGNAL_COUNT];

/// Handles all watched signals. Makes only async-signal-safe calls; the atomics are lock-free.
static void handler(int number) {
    // The interrupted code may be about to read errno.
    int interrupted_errno = errno;
    for (gevent_signal_inbox *inbox = atomic_load(&inboxes); inbox; inbox = inbox->next) {
        // The race: another thread closes its inbox while this handler is about to write to the descriptor, whose
        // number may then be reused. The handler counts itself in `visitors` before it reads the descriptor, and the
        // closer clears the descriptor before it reads `visitors`. All four are sequentially consistent, so either the
        // handler finds no descriptor, or the closer finds the visitor and waits.
        atomic_fetch_add(&inbox->visitors, 1);
        int descriptor = atomic_load(&inbox->descriptor);
        if (descriptor >= 0 && atomic_load(&inbox->wanted[number])) {
            // Counted before the write, so a woken hub finds the count.
            uint32_t earlier = atomic_fetch_add(&inbox->counts[number], 1);
            if (number == SIGINT && atomic_load(&inbox->enforces_interrupt_limit)) {
                int64_t now = gevent_monotonic_time();
                if (earlier == 0) {
                    atomic_store(&inbox->interrupted_since, now);
                } else if (now - atomic_load(&inbox->interrupted_since) >= INTERRUPT_LIMIT) {
                    // The signal is blocked until this handler returns; then it kills the process.
                    signal(SIGINT, SIG_DFL);
                    raise(SIGINT);
                }
            }
            // Fails only if the counter is full, after about 2^64 writes without a read.
            uint64_t one = 1;
            ssize_t written = write(descriptor, &one, sizeof one);
            (void)written;
        }
        atomic_fetch_sub(&inbox->visitors, 1);
    }
    errno = interrupted_errno;
}

static bool is_ours(int number) {
    struct sigaction action;
    return sigaction(number, NULL, &action) == 0 && !(action.sa_flags & SA_SIGINFO) && action.sa_handler == handler;
}

/// Restores the previous action of a signal. Under the lock.
static void restore(int number) {
    if (is_ours(number)) sigaction(number, &previous[number], NULL);
}

static gevent_signal_inbox *find_unused(void) {
    for (gevent_signal_inbox *inbox = atomic_load(&inboxes); inbox; inbox = inbox->next) {
        if (!inbox->is_used) return inbox;
    }
    gevent_signal_inbox *inbox = calloc(1, sizeof *inbox);
    if (!inbox) return NULL;
    atomic_store(&inbox->descriptor, -1);
    inbox->next = atomic_load(&inboxes);
    atomic_store(&inboxes, inbox);
    return inbox;
}

gevent_signal_inbox *gevent_signal_inbox_open(void) {
    int descriptor = gevent_eventfd();
    if (descriptor < 0) return NULL;
    pthread_mutex_lock(&lock);
    gevent_signal_inbox *inbox = find_unused();
    if (inbox) {
        inbox->is_used = true;
        inbox->owner = pthread_self();
        for (int number = 0; number < GEVENT_SIGNAL_COUNT; number++) atomic_store(&inbox->counts[number], 0);
        atomic_store(&inbox->enforces_interrupt_limit, false);
        atomic_store(&inbox->descriptor, descriptor);
    }
    pthread_mutex_unlock(&lock);
    if (!inbox) {
        close(descriptor);
        errno = ENOMEM;
    }
    return inbox;
}

void gevent_signal_inbox_close(gevent_signal_inbox *inbox) {
    for (int number = 1; number < GEVENT_SIGNAL_COUNT; number++) gevent_signal_unwatch(inbox, number);
    int descriptor = atomic_exchange(&inbox->descriptor, -1);
    // A handler on this thread has returned by now. One on another thread finishes within a few instructions.
    while (atomic_load(&inbox->visitors) > 0) sched_yield();
    close(descriptor);
    pthread_mutex_lock(&lock);
    inbox->is_used = false;
    pthread_mutex_unlock(&lock);
}

int gevent_signal_inbox_descriptor(gevent_signal_inbox *inbox) { return atomic_load(&inbox->descriptor); }

int gevent_signal_watch(gevent_signal_inbox *inbox, int number) {
    if (number < 1 || number >= GEVENT_SIGNAL_COUNT) return EINVAL;
    int error = 0;
    pthread_mutex_lock(&lock);
    if (!atomic_load(&inbox->wanted[number])) {
        // Set before the handler is installed, so that the first signal is counted.
        atomic_store(&inbox->wanted[number], true);
        if (watching_inboxes[number] == 0 || !is_ours(number)) {
            // SA_ONSTACK uses the alternate stack if there is one: a greenlet's own may be nearly full.
            struct sigaction action = {.sa_handler = handler, .sa_flags = SA_RESTART | SA_ONSTACK}, before;
            sigemptyset(&action.sa_mask);
            if (sigaction(number, &action, &before) != 0)
                error = errno;
            else if (watching_inboxes[number] == 0)
                previous[number] = before;
        }
        if (error) {
            atomic_store(&inbox->wanted[number], false);
        } else {
            watching_inboxes[number]++;
        }
    }
    pthread_mutex_unlock(&lock);
    if (error) return error;
    // At least one thread must not block the signal.
    sigset_t set, mask;
    sigemptyset(&set);
    sigaddset(&set, number);
    if (pthread_sigmask(SIG_UNBLOCK, &set, &mask) == 0 && sigismember(&mask, number) == 1)
        inbox->was_blocked[number] = true;
    return 0;
}

void gevent_signal_unwatch(gevent_signal_inbox *inbox, int number) {
    if (number < 1 || number >= GEVENT_SIGNAL_COUNT) return;
    pthread_mutex_lock(&lock);
    bool was_watching = atomic_load(&inbox->wanted[number]);
    if (was_watching) {
        if (--watching_inboxes[number] == 0) restore(number);
        atomic_store(&inbox->wanted[number], false);
        atomic_store(&inbox->counts[number], 0);
    }
    pthread_mutex_unlock(&lock);
    if (!was_watching || !inbox->was_blocked[number]) return;
    inbox->was_blocked[number] = false;
    sigset_t set;
    sigemptyset(&set);
    sigaddset(&set, number);
    pthread_sigmask(SIG_BLOCK, &set, NULL);
}

void gevent_signal_inbox_drain(gevent_signal_inbox *inbox) {
    uint64_t count;
    ssize_t taken = read(atomic_load(&inbox->descriptor), &count, sizeof count);
    (void)taken;
}

uint32_t gevent_signal_take(gevent_signal_inbox *inbox, int number) {
    return atomic_exchange(&inbox->counts[number], 0);
}

void gevent_signal_enforce_interrupt_limit(gevent_signal_inbox *inbox, bool enforces) {
    atomic_store(&inbox->enforces_interrupt_limit, enforces);
}

int gevent_signal_inbox_renew(gevent_signal_inbox *inbox) {
    int fresh = gevent_eventfd();
    if (fresh < 0) return -fresh;
    // The replacement is atomic, so a handler writes to one of the two and never to a closed descriptor.
    return -gevent_replace(atomic_load(&inbox->descriptor), fresh);
}

// MARK: fork

// The lock is held during the fork, so that no other thread changes the state meanwhile.
static void before_fork(void) { pthread_mutex_lock(&lock); }

static void after_fork_in_parent(void) { pthread_mutex_unlock(&lock); }

static void after_fork_in_child(void) {
    // Other threads do not exist in the child, and neither do their hubs and running handlers.
    for (gevent_signal_inbox *inbox = atomic_load(&inboxes); inbox; inbox = inbox->next) {
        atomic_store(&inbox->visitors, 0);
        // Signals counted before the fork are delivered in the parent.
        for (int number = 0; number < GEVENT_SIGNAL_COUNT; number++) atomic_store(&inbox->counts[number], 0);
        if (!inbox->is_used || pthread_equal(inbox->owner, pthread_self())) continue;
        for (int number = 1; number < GEVENT_SIGNAL_COUNT; number++) {
            if (!atomic_load(&inbox->wanted[number])) continue;
            if (--watching_inboxes[number] == 0) restore(number);
            atomic_store(&inbox->wanted[number], false);
            inbox->was_blocked[number] = false;
        }
        int descriptor = atomic_exchange(&inbox->descriptor, -1);
        if (descriptor >= 0) close(descriptor);
        inbox->is_used = false;
    }
    pthread_mutex_unlock(&lock);
}

__attribute__((constructor(GEVENT_FORK_SIGNALS))) static void register_fork_handlers(void) {
    pthread_atfork(before_fork, after_fork_in_parent, after_fork_in_child);
}
