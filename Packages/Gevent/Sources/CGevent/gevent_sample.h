// A sample of what a hub's thread is doing: what monitor.c takes, and own_lock.c reads too.
#pragma once

#include "gevent_monitor.h"

enum { GEVENT_SAMPLE_WORDS = 8 << 10 };

struct gevent_sample {
    uint32_t state;  // which thread may touch the rest: private to monitor.c
    uint64_t activity;
    gevent_identity who;
    uintptr_t own_lock;  // the lock that the thread waits for although it holds it itself, or 0
    uintptr_t program_counter, stack_pointer, frame_pointer, link_register;
    size_t word_count;   // how much of the stack was copied, from the stack pointer up
    uintptr_t words[GEVENT_SAMPLE_WORDS];
};
