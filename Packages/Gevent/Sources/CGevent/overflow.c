#define _GNU_SOURCE
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <ucontext.h>
#include <unistd.h>

#include "gevent_hub_stacks.h"
#include "gevent_overflow.h"
#include "gevent_switch.h"

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

static void put_number(size_t number) {
    char digits[24];
    size_t position = sizeof digits - 1;
    digits[position] = 0;
    do digits[--position] = (char)('0' + number % 10);
    while (number /= 10);
    put(digits + position);
}

static void put_name(const gevent_context *context) {
    // The name may have been overwritten by another greenlet.
    char name[sizeof context->name + 1] = {0};
    memcpy(name, context->name, sizeof context->name);
    put(name[0] ? name : "an unnamed greenlet");
}

static void put_advice(void) { put("; GEVENT_STACK_SIZE or stackSize: gives a greenlet more room\n"); }

/// Returns the lowest address that the current greenlet's frames may use, and sets the start of the guard below it.
/// Uses only the address of its context, since the context's fields may have been overwritten.
static const char *stack_low(const gevent_hub *hub, const char **guard_low) {
    if (hub->current == &hub->root) {
        *guard_low = hub->root_mapping;
        return hub->root.stack_low;
    }
    const gevent_stacks *stacks = gevent_hub_stacks_containing(hub, hub->current);
    if (!stacks) return NULL;
    *guard_low = gevent_stacks_low(stacks, hub->current);
    return *guard_low + stacks->guard_size;
}

static bool is_in_stacks(const gevent_hub *hub, const char *address) {
    return gevent_hub_stacks_containing(hub, address) != NULL;
}

#if defined(__x86_64__)
static const char *stack_pointer_of(const ucontext_t *machine) {
    return (const char *)machine->uc_mcontext.gregs[REG_RSP];
}
#elif defined(__aarch64__)
static const char *stack_pointer_of(const ucontext_t *machine) { return (const char *)machine->uc_mcontext.sp; }
#endif

/// Prints a message if a fault at `address` is an overflow of the current stack.
static void report_overflow(const gevent_hub *hub, const char *address, const char *stack_pointer) {
    if (hub->current == &hub->main) return;
    const char *guard_low, *low = stack_low(hub, &guard_low);
    if (!low) return;
    bool is_in_guard = address < low && address >= guard_low;
    // A frame that is larger than the guard can fault anywhere: in the guard of another stack, or when it reads memory
    // that it has overwritten there.
    bool is_beyond = stack_pointer < low && (is_in_stacks(hub, stack_pointer) || is_in_stacks(hub, address));
    if (!is_in_guard && !is_beyond) return;
    put("gevent: greenlet stack overflow in ");
    put_name(hub->current);
    if (stack_pointer < guard_low) {
        put(", which went ");
        put_number((size_t)(low - stack_pointer));
        put(" bytes below its stack, over its guard");
    }
    put_advice();
}

// ThreadSanitizer already takes the next fiber for the running one here.
SWITCHES void gevent_check_stack_pointer(gevent_hub *hub, const char *stack_pointer) {
    const gevent_context *self = hub->current;
    if (self == &hub->main || self == &hub->root) return;
    // The usual case: some stacks are larger than others.
    if (stack_pointer >= self->stack_low && stack_pointer < (const char *)self) return;
    const char *guard_low, *low = stack_low(hub, &guard_low);
    if (!low || stack_pointer >= guard_low || !is_in_stacks(hub, stack_pointer)) return;
    put("gevent: greenlet ");
    put_name(self);
    put(" went ");
    put_number((size_t)(low - stack_pointer));
    put(" bytes below its stack, over its guard, before it parked; it may have overwritten the stack of another");
    put_advice();
    abort();
}

/// Makes only async-signal-safe calls, because the greenlet may have been interrupted anywhere.
static void handler(int signal, siginfo_t *info, void *machine_context) {
    gevent_hub *hub = gevent_this_thread_hub;
    if (hub) report_overflow(hub, info->si_addr, stack_pointer_of(machine_context));
    // Restores the previous handler and returns: the access faults again, and the backtracer, a debugger or the default
    // action handles it as if this handler had not run.
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
    if (memory == MAP_FAILED) return;  // an overflow then prints no message
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
