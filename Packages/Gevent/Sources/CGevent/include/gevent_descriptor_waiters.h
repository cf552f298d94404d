// What the hub knows of a descriptor.
#pragma once

#include "gevent_context.h"

/// Who waits on a descriptor. The table is the Swift side's; the waits' `wait_slot`s point into it.
typedef struct gevent_descriptor {
    gevent_context *reader, *writer;
    void *observers;      // the retained Swift DescriptorObservers, while there are any
    void *watch;          // a retained Swift DescriptorWatch, told of readability when nobody is parked to read
    uint32_t generation;  // counts the closes of this number, so that events of an earlier life are known as such
    uint8_t armed;        // the readiness the loop was asked for
    uint8_t woken;        // the readiness somebody was woken for who has not run since
} gevent_descriptor;

static inline gevent_context **gevent_descriptor_reader(gevent_descriptor *entry) { return &entry->reader; }
static inline gevent_context **gevent_descriptor_writer(gevent_descriptor *entry) { return &entry->writer; }
