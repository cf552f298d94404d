#define _GNU_SOURCE
#include <link.h>
#include <stdlib.h>
#include <string.h>

#include "gevent_thread_words.h"

// Exported by the Swift runtime (SwiftRuntime ABI: Exclusivity.h, Concurrency.h). Weak, so that the C code can be built
// and tested without Swift.
extern void swift_beginAccess(void *pointer, void *buffer, uintptr_t flags, void *pc) __attribute__((weak));
extern void swift_endAccess(void *buffer) __attribute__((weak));
extern void *swift_task_getCurrent(void) __attribute__((weak));

void *gevent_current_task(void) { return swift_task_getCurrent ? swift_task_getCurrent() : NULL; }

typedef struct segment {
    uintptr_t module;
    void **words;
    size_t count;
} segment;

enum { MOST_SEGMENTS = 128 };

typedef struct segments {
    segment items[MOST_SEGMENTS];
    size_t count;
} segments;

static int collect(struct dl_phdr_info *info, size_t size, void *argument) {
    segments *all = argument;
    if (size < offsetof(struct dl_phdr_info, dlpi_tls_data) + sizeof info->dlpi_tls_data) return 0;
    if (!info->dlpi_tls_data) return 0;  // this thread has not used that module's segment yet
    for (int i = 0; i < info->dlpi_phnum; i++) {
        if (info->dlpi_phdr[i].p_type != PT_TLS || all->count == MOST_SEGMENTS) continue;
        all->items[all->count++] = (segment){
            .module = (uintptr_t)info->dlpi_addr,
            .words = info->dlpi_tls_data,
            .count = info->dlpi_phdr[i].p_memsz / sizeof(void *),
        };
    }
    return 0;
}

static segments segments_of_this_thread(void) {
    segments all = {.count = 0};
    dl_iterate_phdr(collect, &all);
    return all;
}

gevent_thread_word gevent_find_access_head(void) {
    gevent_thread_word word = {0};
    if (!swift_beginAccess || !swift_endAccess) return word;
    enum { READ_WITH_TRACKING = 0x20, BUFFER_WORDS = 3 };
    uintptr_t object = 0;
    void *buffer[BUFFER_WORDS] = {0};
    // While this access is the latest open one, the head of the list is the address of its buffer.
    swift_beginAccess(&object, buffer, READ_WITH_TRACKING, NULL);
    segments all = segments_of_this_thread();
    size_t matches = 0;
    for (size_t s = 0; s < all.count; s++)
        for (size_t w = 0; w < all.items[s].count; w++)
            if (*(void *volatile *)&all.items[s].words[w] == (void *)buffer) {
                word = (gevent_thread_word){all.items[s].module, w * sizeof(void *), true};
                matches++;
            }
    swift_endAccess(buffer);
    void **address = gevent_thread_word_address(word, 0, 1);
    if (matches != 1 || !address || *(void *volatile *)address == (void *)buffer) word.found = false;
    return word;
}

struct gevent_thread_snapshot {
    segments all;  // `words` are copies
};

gevent_thread_snapshot *gevent_thread_snapshot_take(void) {
    gevent_thread_snapshot *snapshot = malloc(sizeof *snapshot);
    if (!snapshot) return NULL;
    snapshot->all = segments_of_this_thread();
    for (size_t s = 0; s < snapshot->all.count; s++) {
        segment *item = &snapshot->all.items[s];
        void **copy = malloc(item->count * sizeof(void *) + 1);
        if (copy)
            for (size_t w = 0; w < item->count; w++) copy[w] = *(void *volatile *)&item->words[w];
        else
            item->count = 0;
        item->words = copy;
    }
    return snapshot;
}

void gevent_thread_snapshot_free(gevent_thread_snapshot *snapshot) {
    if (!snapshot) return;
    for (size_t s = 0; s < snapshot->all.count; s++) free(snapshot->all.items[s].words);
    free(snapshot);
}

static void *word_in(const gevent_thread_snapshot *snapshot, uintptr_t module, size_t index) {
    for (size_t s = 0; s < snapshot->all.count; s++)
        if (snapshot->all.items[s].module == module && index < snapshot->all.items[s].count)
            return snapshot->all.items[s].words[index];
    return NULL;
}

gevent_thread_word gevent_find_pushed_word(
    const gevent_thread_snapshot *before, const gevent_thread_snapshot *inside, const gevent_thread_snapshot *deeper,
    const gevent_thread_snapshot *after) {
    gevent_thread_word word = {0};
    if (!before || !inside || !deeper || !after) return word;
    size_t matches = 0;
    for (size_t s = 0; s < inside->all.count; s++)
        for (size_t w = 0; w < inside->all.items[s].count; w++) {
            uintptr_t module = inside->all.items[s].module;
            void *first = inside->all.items[s].words[w], *second = word_in(deeper, module, w);
            if (!first || first != second) continue;
            if (word_in(before, module, w) || word_in(after, module, w)) continue;
            word = (gevent_thread_word){module, w * sizeof(void *), true};
            matches++;
        }
    if (matches != 1) word.found = false;
    return word;
}

void **gevent_thread_word_address(gevent_thread_word word, ptrdiff_t first, size_t words) {
    if (!word.found) return NULL;
    segments all = segments_of_this_thread();
    for (size_t s = 0; s < all.count; s++) {
        if (all.items[s].module != word.module) continue;
        ptrdiff_t index = (ptrdiff_t)(word.offset / sizeof(void *)) + first;
        if (index < 0 || (size_t)index + words > all.items[s].count) return NULL;
        return &all.items[s].words[index];
    }
    return NULL;
}
