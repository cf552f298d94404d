#define _GNU_SOURCE
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "gevent_hub.h"
#include "gevent_overflow.h"

enum { SIGNAL_STACK = 64 << 10 };

static struct sigaction previous_segv, previous_bus;
static __thread void *own_signal_stack = NULL;

static void put(const char *text) {
    size_t left = strlen(text);
    while (left > 0) {
        ssize_t written = write(STDERR_FILENO, text, left);
        if (written <= 0) return;
        text += written;
        left -= (size_t)written;
    }
}

/// Only async-signal-safe calls: the greenlet may have been anywhere.
static void handler(int signal, siginfo_t *info, void *machine_context) {
    (void)machine_context;
    gevent_hub *hub = gevent_this_thread_hub;
    if (hub && hub->current != &hub->main) {
        gevent_context *context = hub->current;
        uintptr_t address = (uintptr_t)info->si_addr, low = (uintptr_t)context->stack_low;
        if (address < low && address >= low - hub->stacks.guard_size) {
            put("gevent: greenlet stack overflow in ");
            put(context->name[0] ? context->name : "an unnamed greenlet");
            put("; GEVENT_STACK_SIZE sets the size of a stack\n");
        }
    }
    // Put back what was there and return: the access faults again, and the backtracer, a debugger or the default
    // action sees it as if we had never been here.
    sigaction(signal, signal == SIGBUS ? &previous_bus : &previous_segv, NULL);
}

static void install(void) {
    struct sigaction action = {0};
    action.sa_sigaction = handler;
    action.sa_flags = SA_SIGINFO | SA_ONSTACK;
    sigemptyset(&action.sa_mask);
    sigaction(SIGSEGV, &action, &previous_segv);
    sigaction(SIGBUS, &action, &previous_bus);
}

void gevent_overflow_watch_this_thread(void) {
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    pthread_once(&once, install);
    stack_t current;
    if (sigaltstack(NULL, &current) == 0 && !(current.ss_flags & SS_DISABLE)) return;
    void *memory = mmap(NULL, SIGNAL_STACK, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (memory == MAP_FAILED) return;  // an overflow then dies without its message
    stack_t ours = {.ss_sp = memory, .ss_size = SIGNAL_STACK};
    if (sigaltstack(&ours, NULL) == 0)
        own_signal_stack = memory;
    else
        munmap(memory, SIGNAL_STACK);
}

void gevent_overflow_unwatch_this_thread(void) {
    if (!own_signal_stack) return;
    stack_t none = {.ss_flags = SS_DISABLE};
    sigaltstack(&none, NULL);
    munmap(own_signal_stack, SIGNAL_STACK);
    own_signal_stack = NULL;
}
