// Tests the C part of the core without Swift: the switch with every register it must preserve, stacks and their guards,
// the ready queue, waits and timers. ci/aarch64/run builds it for AArch64 and runs it under qemu. It also works on
// other architectures: cc -pthread -I.../CGevent -I.../CGevent/include .../CGevent/*.c .../CGevent/*.S
// ci/aarch64/test.c

#include <alloca.h>
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <ucontext.h>
#include <unistd.h>

#include "CGevent.h"

static int failures = 0;

#define CHECK(condition)                                                              \
    do {                                                                              \
        if (!(condition)) {                                                           \
            fprintf(stderr, "%s:%d: %s does not hold\n", __FILE__, __LINE__, #condition); \
            failures++;                                                               \
        }                                                                             \
    } while (0)

// MARK: a small hub in C, with virtual time

typedef struct job {
    void (*body)(struct job *self);
    gevent_context *context;
    long number, result;
    uint8_t stack_class;
} job;

static gevent_hub *hub;
static long alive;

static void run_job(void *greenlet, gevent_context *context) {
    job *self = greenlet;
    self->context = context;
    self->body(self);
    alive--;
}

static uint8_t stack_class_of_job(const void *greenlet) { return ((const job *)greenlet)->stack_class; }

static void run_hub(void *owner) {
    (void)owner;
    while (alive > 0) {
        gevent_timer *timer = gevent_fire_timers(hub, hub->now);
        CHECK(timer == NULL);
        gevent_ready_grant(hub, 100);
        gevent_run_result result = gevent_run_ready(hub);
        CHECK(result == GEVENT_RUN_DRAINED || result == GEVENT_RUN_GRANT_USED);
        if (gevent_ready_count(hub) == 0 && hub->timers.count > 0)
            hub->now = gevent_timers_next(&hub->timers, hub->now);
    }
}

static void with_hub(size_t stack_size, long count, job *jobs, void (*body)(job *)) {
    gevent_thread_word none = {0};
    hub = gevent_hub_create(&hub, (gevent_hub_functions){run_job, stack_class_of_job, run_hub}, stack_size, none, none);
    CHECK(hub != NULL);
    gevent_hub_set_current(hub);
    alive = count;
    for (long i = 0; i < count; i++) {
        jobs[i] = (job){.body = body, .number = i};
        gevent_ready_push(hub, &jobs[i], GEVENT_READY_START);
    }
    // Main switches to the hub, which runs until all greenlets have ended and then switches back.
    gevent_park(hub);
    CHECK(hub->current == &hub->main);
    CHECK(hub->live_stacks == 0);
}

// MARK: Tests

/// Keeps integers and floating-point numbers in callee-saved registers across many switches.
__attribute__((noinline)) static void keep_registers(job *self) {
    long a = self->number, b = a * 3 + 1, c = b ^ 0x55, d = c + 7, e = d * 5, f = e - 11, g = f ^ a, h = g + b;
    double p = (double)a + 0.25, q = p * 1.5, r = q - 3, s = r / 2, t = s + p, u = t * q, v = u - s, w = v + 1;
    for (int i = 0; i < 1000; i++) {
        errno = (int)self->number;
        CHECK(gevent_yield());
        CHECK(errno == (int)self->number);
        a += 1, b += a, c ^= b, d += c, e ^= d, f += e, g ^= f, h += g;
        p += 1, q += p / 8, r += q / 8, s += r / 8, t += s / 8, u += t / 8, v += u / 8, w += v / 8;
    }
    self->result = a ^ b ^ c ^ d ^ e ^ f ^ g ^ h ^ (long)(p + q + r + s + t + u + v + w);
}

/// The same without a switch: the expected result.
__attribute__((noinline)) static long kept_registers(long number) {
    long a = number, b = a * 3 + 1, c = b ^ 0x55, d = c + 7, e = d * 5, f = e - 11, g = f ^ a, h = g + b;
    double p = (double)a + 0.25, q = p * 1.5, r = q - 3, s = r / 2, t = s + p, u = t * q, v = u - s, w = v + 1;
    for (int i = 0; i < 1000; i++) {
        a += 1, b += a, c ^= b, d += c, e ^= d, f += e, g ^= f, h += g;
        p += 1, q += p / 8, r += q / 8, s += r / 8, t += s / 8, u += t / 8, v += u / 8, w += v / 8;
    }
    return a ^ b ^ c ^ d ^ e ^ f ^ g ^ h ^ (long)(p + q + r + s + t + u + v + w);
}

static void test_registers(void) {
    enum { COUNT = 50 };
    static job jobs[COUNT];
    with_hub(64 << 10, COUNT, jobs, keep_registers);
    for (long i = 0; i < COUNT; i++) CHECK(jobs[i].result == kept_registers(i));
    gevent_hub_destroy(hub);
}

static long order[1000], order_count;

static void sleep_by_number(job *self) {
    // Later numbers have shorter sleeps. Pairs share a deadline, and wake in the order in which they started to sleep.
    int64_t deadline = hub->now + 1000000000LL * (500 - self->number / 2);
    gevent_wait_set_timer(hub, self->context, deadline, hub->now, GEVENT_TIMER_WAKE, true);
    CHECK(gevent_wait(hub, 1, NULL) == GEVENT_WAIT_WOKEN);
    CHECK(hub->now == deadline);
    order[order_count++] = self->number;
}

static void test_sleep(void) {
    static job jobs[1000];
    order_count = 0;
    with_hub(64 << 10, 1000, jobs, sleep_by_number);
    CHECK(order_count == 1000);
    for (long i = 0; i < 1000; i++) CHECK(order[i] == 998 - i / 2 * 2 + i % 2);
    gevent_hub_destroy(hub);
}

static void end_at_once(job *self) { self->result = 1; }

static void test_stacks_are_reused(void) {
    enum { COUNT = 100000 };
    job *jobs = calloc(COUNT, sizeof *jobs);
    with_hub(64 << 10, COUNT, jobs, end_at_once);
    for (long i = 0; i < COUNT; i++) CHECK(jobs[i].result == 1);
    // Each starts on the stack on which the previous one ended.
    CHECK(gevent_stacks_slot_count(&hub->stacks) <= 2);
    gevent_hub_destroy(hub);
    free(jobs);
}

static void park_for_ever(job *self) {
    (void)self;
    gevent_wait(hub, 1, NULL);
}

static job waiter_and_waker[2];

static void wake_the_other(job *self) {
    if (self->number == 0) {
        self->result = gevent_wait(hub, 1, NULL);
    } else {
        gevent_context *other = waiter_and_waker[0].context;
        CHECK(other->wait_state == GEVENT_WAIT_PARKED);
        CHECK(gevent_wait_end(other, GEVENT_WAIT_WOKEN));
        CHECK(!gevent_wait_end(other, GEVENT_WAIT_FAILED));  // ended once
    }
}

static void test_a_wait_ends_once(void) {
    with_hub(64 << 10, 2, waiter_and_waker, wake_the_other);
    CHECK(waiter_and_waker[0].result == GEVENT_WAIT_WOKEN);
    gevent_hub_destroy(hub);
}

static int dig(volatile int depth) {
    volatile char room[256];
    room[0] = (char)depth;
    return depth == 0 ? 0 : dig(depth + 1) + room[0];
}

static void overflow(job *self) {
    strcpy(self->context->name, "digger");
    self->result = dig(1);
}

// Functions with large frames that touch little of them. Compiled without stack probes, like code compiled by Swift.

/// Skips the guard and reaches a little into the next stack.
static size_t into_next(void) { return hub->stacks.slot_size + hub->stacks.slot_size / 8; }

/// Skips the guard and the usable part of the next stack, and reaches into its guard.
static size_t into_next_guard(void) { return 2 * hub->stacks.slot_size - hub->stacks.guard_size / 2; }

__attribute__((noinline)) static void jump_and_yield(void) {
    volatile char *frame = alloca(into_next());
    frame[0] = 1;
    CHECK(gevent_yield());
    CHECK(frame[0] == 1);
}

__attribute__((noinline)) static void jump_and_wait(void) {
    volatile char *frame = alloca(into_next());
    frame[0] = 1;
    gevent_wait(hub, 1, NULL);
    CHECK(frame[0] == 1);
}

__attribute__((noinline)) static void jump_into_a_guard(void) {
    volatile char *frame = alloca(into_next_guard());
    frame[0] = 1;
    CHECK(frame[0] == 1);
}

static void call_in_one_of_two(job *self, void (*jump)(void)) {
    // The third, which parks forever, has the stack below. The fourth is always ready, so that a yield switches.
    if (self->number == 3)
        for (;;) gevent_yield();
    if (self->number != 1) return park_for_ever(self);
    CHECK(gevent_yield());
    strcpy(self->context->name, "jumper");
    jump();
}

static void yield_after_a_jump(job *self) { call_in_one_of_two(self, jump_and_yield); }
static void wait_after_a_jump(job *self) { call_in_one_of_two(self, jump_and_wait); }
static void fault_after_a_jump(job *self) { call_in_one_of_two(self, jump_into_a_guard); }

static void end_of_lowest(job *self) {
    // The last stack of a slab is the lowest.
    if (self->number != (long)hub->stacks.slots_per_slab - 1) park_for_ever(self);
    strcpy(self->context->name, "jumper");
    jump_and_wait();
}

/// Runs greenlets in a child, which must end by `signal` and print `expected`.
static void expect_end(long count, size_t stack_size, void (*body)(job *), int signal, const char *expected) {
    int ends[2];
    CHECK(pipe(ends) == 0);
    pid_t child = fork();
    if (child == 0) {
        alarm(20);  // a hub that does not detect the overflow runs forever
        dup2(ends[1], STDERR_FILENO);
        static job jobs[100];
        with_hub(stack_size, count, jobs, body);
        _exit(0);
    }
    close(ends[1]);
    char text[4096] = {0};
    size_t used = 0;
    for (ssize_t got; used < sizeof text - 1 && (got = read(ends[0], text + used, sizeof text - 1 - used)) > 0;)
        used += (size_t)got;
    close(ends[0]);
    int status = 0;
    CHECK(waitpid(child, &status, 0) == child);
    CHECK(WIFSIGNALED(status) && WTERMSIG(status) == signal);
    if (!strstr(text, expected)) {
        fprintf(stderr, "expected \"%s\", found \"%s\"\n", expected, text);
        failures++;
    }
}

/// An overflow ends the process by a signal, with a message that names the greenlet.
static void test_overflow(void) {
    expect_end(1, 64 << 10, overflow, SIGSEGV, "greenlet stack overflow in digger");
}

/// A frame that skips the guard does the same at the next switch.
static void test_jumps(void) {
    expect_end(4, 1 << 20, yield_after_a_jump, SIGABRT, "gevent: greenlet jumper went ");
    expect_end(3, 1 << 20, wait_after_a_jump, SIGABRT, "bytes below its stack, over its guard, before it parked; ");
    // Only the slab's reserve lies below.
    expect_end(63, 1 << 20, end_of_lowest, SIGABRT, "gevent: greenlet jumper went ");
    expect_end(3, 1 << 20, fault_after_a_jump, SIGSEGV, "greenlet stack overflow in jumper, which went ");
}

static char foreign_stack[256 << 10] __attribute__((aligned(16)));
static ucontext_t greenlet_side, foreign_side;
static int foreign_switches;

static void on_a_foreign_stack(void) {
    for (int i = 0; i < 10; i++) foreign_switches += gevent_yield();
}

static void switch_on_a_foreign_stack(job *self) {
    if (self->number == 1) {
        getcontext(&foreign_side);
        foreign_side.uc_stack = (stack_t){.ss_sp = foreign_stack, .ss_size = sizeof foreign_stack};
        foreign_side.uc_link = &greenlet_side;
        makecontext(&foreign_side, on_a_foreign_stack, 0);
        swapcontext(&greenlet_side, &foreign_side);
    } else {
        for (int i = 0; i < 10; i++) CHECK(gevent_yield());
    }
}

/// A library may switch to its own stack and yield there.
static void test_foreign_stack(void) {
    static job jobs[3];
    with_hub(64 << 10, 3, jobs, switch_on_a_foreign_stack);
    CHECK(foreign_switches == 10);
    gevent_hub_destroy(hub);
}

/// Compares random starts and cancels with a plain array.
static void test_timers(void) {
    enum { COUNT = 300, STEPS = 100000 };
    static gevent_timer timers[COUNT];
    static gevent_timers wheel;
    memset(timers, 0, sizeof timers);
    gevent_timers_init(&wheel);
    int64_t now = 0;
    uint64_t random = 88172645463325252ULL;
    for (int step = 0; step < STEPS; step++) {
        random ^= random << 13, random ^= random >> 7, random ^= random << 17;
        gevent_timer *timer = &timers[random % COUNT];
        if (gevent_timer_is_pending(timer)) {
            gevent_timers_cancel(&wheel, timer);
        } else {
            int64_t distance = (int64_t)((random >> 20) % (1ULL << (random >> 8) % 44));
            gevent_timers_start(&wheel, timer, now + distance, now);
        }
        if (random % 7 != 0) continue;
        int64_t next = gevent_timers_next(&wheel, now);
        if (next != INT64_MAX && next > now) now = next;
        for (gevent_timer *due; (due = gevent_timers_pop_due(&wheel, now));) {
            CHECK(due->deadline <= now);
            for (int i = 0; i < COUNT; i++) {
                if (!gevent_timer_is_pending(&timers[i])) continue;
                bool is_later = timers[i].deadline > due->deadline ||
                                (timers[i].deadline == due->deadline && timers[i].sequence > due->sequence);
                CHECK(is_later);
            }
        }
        for (int i = 0; i < COUNT; i++) CHECK(!gevent_timer_is_pending(&timers[i]) || timers[i].deadline > now);
    }
    gevent_timers_destroy(&wheel);
}

/// Destroying a hub with parked contexts releases all memory.
static void test_destroy_with_parked(void) {
    static job jobs[10];
    gevent_thread_word none = {0};
    hub = gevent_hub_create(&hub, (gevent_hub_functions){run_job, stack_class_of_job, run_hub}, 64 << 10, none, none);
    gevent_hub_set_current(hub);
    for (long i = 0; i < 10; i++) {
        jobs[i] = (job){.body = park_for_ever, .number = i};
        gevent_ready_push(hub, &jobs[i], GEVENT_READY_START);
    }
    alive = 0;  // makes the hub switch back as soon as it runs
    gevent_ready_grant(hub, 100);
    gevent_park(hub);
    CHECK(hub->live_stacks == 10);
    gevent_hub_destroy(hub);
}

int main(void) {
    printf("guard pages: %s\n", gevent_stacks_guard_kind() == GEVENT_GUARD_MARKERS ? "markers" : "mprotect");
    test_registers();
    test_sleep();
    test_stacks_are_reused();
    test_a_wait_ends_once();
    test_timers();
    test_destroy_with_parked();
    test_overflow();
    test_jumps();
    test_foreign_stack();
    gevent_stacks_force_mprotect(true);
    test_sleep();
    test_overflow();
    test_jumps();
    if (failures > 0) {
        fprintf(stderr, "%d checks failed\n", failures);
        return 1;
    }
    puts("all checks passed");
    return 0;
}
