#include <ev.h>
#include <stdlib.h>

#include "CPlainLibev.h"
#include "CPlainLoops.h"

typedef struct batch {
    plain_ready *items;
    int count;
} batch;

static void is_ready(struct ev_loop *loop, ev_io *watcher, int events) {
    (void)loop;
    batch *into = watcher->data;
    uint8_t readiness = (uint8_t)((events & EV_READ ? 1 : 0) | (events & EV_WRITE ? 2 : 0));
    into->items[into->count++] = (plain_ready){watcher->fd, readiness};
}

int64_t plain_libev_polls(const int *descriptors, int count, int rounds, int64_t *seen) {
    struct ev_loop *loop = ev_loop_new(EVFLAG_AUTO);
    ev_io *watchers = calloc((size_t)count + 1, sizeof *watchers);
    batch into = {calloc((size_t)count + 1, sizeof(plain_ready)), 0};
    int64_t total = -1;
    *seen = 0;
    if (loop && watchers && into.items) {
        for (int i = 0; i < count; i++) {
            ev_io_init(&watchers[i], is_ready, descriptors[i], EV_READ);
            watchers[i].data = &into;
            ev_io_start(loop, &watchers[i]);
        }
        ev_run(loop, EVRUN_NOWAIT);  // registers them
        int64_t start = plain_now();
        for (int round = 0; round < rounds; round++) {
            into.count = 0;
            ev_run(loop, EVRUN_NOWAIT);
            *seen += into.count;
        }
        total = plain_now() - start;
        for (int i = 0; i < count; i++) ev_io_stop(loop, &watchers[i]);
    }
    if (loop) ev_loop_destroy(loop);
    free(watchers);
    free(into.items);
    return total;
}
