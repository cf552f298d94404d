// What measurements need and Swift cannot reach: clocks, the reference loop, binding to a processor, and what its Glibc
// module lacks.
#pragma once

#include <stdbool.h>
#include <stdint.h>

/// A moment: wall time, this process' processor time, and how often the kernel took a processor away from it.
typedef struct measure_moment {
    int64_t wall;            // nanoseconds
    int64_t processor;       // nanoseconds, all threads, user and system
    int64_t preemptions;     // involuntary switches of all threads
} measure_moment;

measure_moment measure_now(void);

/// The monotonic clock alone, in nanoseconds.
int64_t measure_wall(void);

/// The processor time of one process, children not included, in nanoseconds; -1 if it cannot be read.
int64_t measure_processor_time_of(int process);

/// Bytes of memory that one process takes, 0 for this one: what is resident and its page tables, which are what a large
/// stack costs. -1 if they cannot be read.
int64_t measure_memory_bytes(int process);

/// What the reference loop took.
typedef struct measure_reference {
    double nanoseconds;  // of one step, by the wall clock
    double share;        // of the time in which this thread had a processor: 1 on a machine that does nothing else
} measure_reference;

/// A fixed piece of work that no change of this project makes faster or slower: `steps` steps around a ring of nodes in
/// the first-level cache, each with an indirect call, eight stores and eight loads of what was just stored, as a switch
/// has them. What a case costs in steps of it is much the same on a slow and on a fast machine.
measure_reference measure_reference_steps(int64_t steps);

/// How many processors this process may use, and the number of the one at `index` in ascending order, or -1.
int measure_allowed_processors(void);
int measure_allowed_processor(int index);

/// Binds the calling thread to one processor. False if that is not allowed.
bool measure_bind(int processor);

/// A pipe whose ends no child inherits, or -1 with errno.
int measure_pipe(int ends[2], bool nonblocking);

/// An eventfd, or -1 with errno: something that one thread rings and another one hears, which blocks until then.
int measure_bell(void);
void measure_bell_ring(int bell);
void measure_bell_hear(int bell);
