// Functions for measurements that Swift cannot provide: clocks, the reference loop, binding to a processor, and
// functions that its Glibc module lacks.
#pragma once

#include <stdbool.h>
#include <stdint.h>

/// A moment: wall time, this process's processor time, and the number of times the kernel preempted it.
typedef struct measure_moment {
    int64_t wall;            // nanoseconds
    int64_t processor;       // nanoseconds, all threads, user and system
    int64_t preemptions;     // involuntary switches of all threads
} measure_moment;

measure_moment measure_now(void);

/// Returns the monotonic clock alone, in nanoseconds.
int64_t measure_wall(void);

/// Returns the processor time of one process without its children, in nanoseconds; -1 if it cannot be read.
int64_t measure_processor_time_of(int process);

/// Returns the memory of one process in bytes, 0 meaning this one: resident memory and page tables, which are the cost
/// of a large stack. Returns -1 if they cannot be read.
int64_t measure_memory_bytes(int process);

/// The result of the reference loop.
typedef struct measure_reference {
    double nanoseconds;  // of one step, by the wall clock
    double share;        // of the processor for this thread: 1 on an idle machine
} measure_reference;

/// Runs a fixed piece of work that no change of this project affects: `steps` steps around a ring of nodes in the
/// first-level cache. Each step makes an indirect call, eight stores and eight loads of the stored values, like a
/// switch. The cost of a case in steps is similar on slow and fast machines.
measure_reference measure_reference_steps(int64_t steps);

/// The number of processors that this process may use, and the number of the one at `index` in ascending order, or -1.
int measure_allowed_processors(void);
int measure_allowed_processor(int index);

/// Binds the calling thread to one processor. Returns false if that is not allowed.
bool measure_bind(int processor);

/// Makes a pipe whose ends are close-on-exec. Returns -1 with errno on failure.
int measure_pipe(int ends[2], bool nonblocking);

/// Makes a blocking eventfd, with which one thread wakes another. Returns -1 with errno on failure.
int measure_bell(void);
void measure_bell_ring(int bell);
void measure_bell_hear(int bell);
