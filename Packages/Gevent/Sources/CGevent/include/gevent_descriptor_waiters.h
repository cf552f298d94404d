// The hub's record of a descriptor.
#pragma once

#include "gevent_context.h"

/// The waiters of a descriptor. The Swift side owns the table; the `wait_slot`s of waiting contexts point into it.
typedef struct gevent_descriptor {
    gevent_context *reader, *writer;
    void *observers;      // the retained Swift DescriptorObservers; NULL if there are none
    void *watch;          // a retained Swift DescriptorWatch, notified of readability if there is no reader
    uint32_t generation;  // counts the closes of this number, so that stale events can be recognised
    uint8_t armed;        // the interest that is registered with the loop
    uint8_t woken;        // the readiness for which a greenlet was woken that has not run since
} gevent_descriptor;

static inline gevent_context **gevent_descriptor_reader(gevent_descriptor *entry) { return &entry->reader; }
static inline gevent_context **gevent_descriptor_writer(gevent_descriptor *entry) { return &entry->writer; }
