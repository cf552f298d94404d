// Counts the instructions of a part of a program by single-stepping. The count is exact and the same on every machine.
// It takes a few microseconds per instruction, but noise does not affect it, and it needs neither a tool nor the
// processor's performance counters, which virtual machines rarely have.
#pragma once

#include <stdint.h>

/// Runs this program again with these arguments, which end with a null pointer, with GEVENT_BENCHMARK_STEPPED set and
/// without its standard output. Returns the number of instructions between its calls of count_instructions_begin and
/// count_instructions_end, in user mode and on the calling thread; a system call counts as one. Returns -1 if the
/// program failed, and -2 if this system does not allow tracing.
int64_t count_instructions_of(char *const arguments[]);

/// Whether this process is being counted.
int count_instructions_is_on(void);
void count_instructions_begin(void);
void count_instructions_end(void);
