// A sample of a hub's thread. monitor.c takes it, and self_deadlock.c reads it too.
#pragma once

#include "gevent_monitor.h"

enum { GEVENT_SAMPLE_WORDS = 8 << 10 };

struct gevent_sample {
    uint32_t state;  // which thread may access the other fields; private to monitor.c
    uint64_t activity;
    gevent_identity identity;
    uintptr_t self_deadlock;  // address of the lock that the thread both holds and waits for; 0 if none
    uintptr_t program_counter, stack_pointer, frame_pointer, link_register;
    size_t word_count;   // number of words copied from the stack, starting at the stack pointer
    uintptr_t words[GEVENT_SAMPLE_WORDS];
};
