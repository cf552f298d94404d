#define _GNU_SOURCE
#include "CMeasure.h"

#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <stdio.h>
#include <sys/eventfd.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

static int64_t nanoseconds(clockid_t clock) {
    struct timespec time;
    if (clock_gettime(clock, &time) != 0) return -1;
    return (int64_t)time.tv_sec * 1000000000 + time.tv_nsec;
}

int64_t measure_wall(void) { return nanoseconds(CLOCK_MONOTONIC); }

measure_moment measure_now(void) {
    struct rusage usage;
    getrusage(RUSAGE_SELF, &usage);
    return (measure_moment){
        .wall = nanoseconds(CLOCK_MONOTONIC),
        .processor = nanoseconds(CLOCK_PROCESS_CPUTIME_ID),
        .preemptions = usage.ru_nivcsw,
    };
}

int64_t measure_processor_time_of(int process) {
    clockid_t clock;
    if (clock_getcpuclockid(process, &clock) != 0) return -1;
    return nanoseconds(clock);
}

int64_t measure_memory_bytes(int process) {
    char path[64] = "/proc/self/status";
    if (process > 0) snprintf(path, sizeof path, "/proc/%d/status", process);
    FILE *file = fopen(path, "re");
    if (!file) return -1;
    char line[256];
    long long resident = -1, tables = -1;
    while (fgets(line, sizeof line, file)) {
        sscanf(line, "VmRSS: %lld kB", &resident);
        sscanf(line, "VmPTE: %lld kB", &tables);
    }
    fclose(file);
    return resident >= 0 && tables >= 0 ? (resident + tables) * 1024 : -1;
}

// --- The reference loop ----------------------------------------------------------------------------------------------

enum { NODES = 64, WORDS = 8 };

typedef struct node {
    struct node *next;
    void (*step)(struct node *, struct node *);
    uint64_t words[WORDS];
} node;

// Called through a pointer that the compiler cannot analyse. Volatile, so that every word is stored and reloaded.
static void step(node *from, node *to) {
    volatile uint64_t saved[WORDS];
    for (int i = 0; i < WORDS; i++) saved[i] = from->words[i];
    for (int i = 0; i < WORDS; i++) to->words[i] = saved[WORDS - 1 - i] + 1;
}

measure_reference measure_reference_steps(int64_t steps) {
    static _Thread_local node nodes[NODES];
    void (*volatile function)(node *, node *) = step;
    // 29 is coprime to 64, so the ring visits every node, and never two neighbours in succession.
    for (int i = 0; i < NODES; i++) nodes[i] = (node){.next = &nodes[(i + 29) % NODES], .step = function};
    node *at = nodes;
    int64_t wall = nanoseconds(CLOCK_MONOTONIC), processor = nanoseconds(CLOCK_THREAD_CPUTIME_ID);
    for (int64_t i = 0; i < steps; i++) {
        node *next = at->next;
        at->step(at, next);
        at = next;
    }
    processor = nanoseconds(CLOCK_THREAD_CPUTIME_ID) - processor;
    wall = nanoseconds(CLOCK_MONOTONIC) - wall;
    if (steps <= 0 || wall <= 0) return (measure_reference){0, 0};
    return (measure_reference){(double)wall / (double)steps, (double)processor / (double)wall};
}

// --- Processors ------------------------------------------------------------------------------------------------------

// Read when the process starts: binding a thread must not change the set of allowed processors for the next one.
static cpu_set_t allowed;

__attribute__((constructor)) static void find_allowed(void) {
    if (sched_getaffinity(0, sizeof allowed, &allowed) != 0) CPU_ZERO(&allowed);
}

int measure_allowed_processors(void) { return CPU_COUNT(&allowed); }

int measure_allowed_processor(int index) {
    for (int processor = 0; processor < CPU_SETSIZE; processor++) {
        if (CPU_ISSET(processor, &allowed) && index-- == 0) return processor;
    }
    return -1;
}

bool measure_bind(int processor) {
    cpu_set_t set;
    CPU_ZERO(&set);
    if (processor < 0 || processor >= CPU_SETSIZE) return false;
    CPU_SET(processor, &set);
    return sched_setaffinity(0, sizeof set, &set) == 0;
}

// --- What Swift's Glibc lacks ----------------------------------------------------------------------------------------

int measure_pipe(int ends[2], bool nonblocking) { return pipe2(ends, O_CLOEXEC | (nonblocking ? O_NONBLOCK : 0)); }

int measure_bell(void) { return eventfd(0, EFD_CLOEXEC); }

void measure_bell_ring(int bell) { eventfd_write(bell, 1); }

void measure_bell_hear(int bell) {
    eventfd_t value;
    while (eventfd_read(bell, &value) != 0 && errno == EINTR) {}
}
