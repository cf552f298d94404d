// Counts the instructions of a part of a program, exactly and on every machine alike, by single-stepping it: slow, a
// few microseconds an instruction, but a noisy machine cannot change what it counts, and it needs no counter of the
// processor's, which virtual machines rarely have, and no tool.
#pragma once

#include <stdint.h>

/// Runs this program again with these arguments, which end with a null pointer, with GEVENT_BENCHMARK_STEPPED set and
/// without its standard output. Returns the instructions between its calls of count_instructions_begin and
/// count_instructions_end, in user mode and of the calling thread; a system call counts as one. -1 if the program
/// failed, and -2 if this system does not allow tracing.
int64_t count_instructions_of(char *const arguments[]);

/// Whether this process is being counted.
int count_instructions_is_on(void);
void count_instructions_begin(void);
void count_instructions_end(void);
