#include "gevent_records.h"

#include <stdio.h>
#include <stdlib.h>

#include "gevent_spawn_tree.h"
#include "gevent_locals.h"

/// A small record of any kind. All have one size, so that one free list serves them.
union record {
    gevent_deferred deferred;
    gevent_spawn_node spawn_node;
    gevent_spawn_tree tree;
    gevent_locals locals;
    union record *next_free;
};

static void *allocate(size_t size) {
    void *memory = malloc(size);
    if (!memory) {
        fputs("gevent: out of memory for a record\n", stderr);
        abort();
    }
    return memory;
}

static union record *take_record(gevent_hub *hub) {
    union record *record = hub->free_records;
    if (record) {
        hub->free_records = record->next_free;
        return record;
    }
    return allocate(sizeof *record);
}

void *gevent_record_take(gevent_hub *hub) { return take_record(hub); }

gevent_deferred *gevent_deferred_take(gevent_hub *hub) {
    gevent_deferred *deferred = &take_record(hub)->deferred;
    *deferred = (gevent_deferred){0};
    return deferred;
}

gevent_links *gevent_links_take(gevent_hub *hub) {
    gevent_links *links = hub->free_links;
    if (links)
        hub->free_links = (gevent_links *)links->list.next;
    else
        links = allocate(sizeof *links);
    gevent_list_init(&links->list);
    return links;
}

void gevent_links_release(gevent_hub *hub, gevent_links *links) {
    if (!hub) {
        free(links);
        return;
    }
    links->list.next = (gevent_node *)hub->free_links;
    hub->free_links = links;
}

void gevent_record_release(gevent_hub *hub, void *memory) {
    union record *record = memory;
    if (!hub) {
        free(record);
        return;
    }
    record->next_free = hub->free_records;
    hub->free_records = record;
}

void gevent_records_free(gevent_hub *hub) {
    for (union record *record = hub->free_records, *next; record; record = next) {
        next = record->next_free;
        free(record);
    }
    for (gevent_links *links = hub->free_links, *next; links; links = next) {
        next = (gevent_links *)links->list.next;
        free(links);
    }
}
