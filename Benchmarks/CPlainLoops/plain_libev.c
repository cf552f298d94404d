#include "CPlainLoops.h"

#if __has_include(<ev.h>)
#include <ev.h>
#include <stdlib.h>
#include <time.h>

typedef struct ready {
    int descriptor;
    uint8_t readiness;
} ready;

static ready *batch;
static int used;

static void on_ready(struct ev_loop *loop, ev_io *watcher, int events) {
    (void)loop;
    batch[used++] = (ready){watcher->fd, (uint8_t)((events & EV_READ ? 1 : 0) | (events & EV_WRITE ? 2 : 0))};
}

int64_t plain_libev_polls(const int *descriptors, int count, int rounds, int64_t *seen) {
    struct ev_loop *loop = ev_loop_new(0);
    ev_io *watchers = calloc((size_t)count, sizeof *watchers);
    batch = calloc((size_t)count, sizeof *batch);
    for (int i = 0; i < count; i++) {
        ev_io_init(&watchers[i], on_ready, descriptors[i], EV_READ);
        ev_io_start(loop, &watchers[i]);
    }
    *seen = 0;
    struct timespec start, end;
    clock_gettime(CLOCK_MONOTONIC, &start);
    for (int round = 0; round < rounds; round++) {
        used = 0;
        ev_run(loop, EVRUN_NOWAIT);
        *seen += used;
    }
    clock_gettime(CLOCK_MONOTONIC, &end);
    ev_loop_destroy(loop);
    free(watchers);
    free(batch);
    return (int64_t)(end.tv_sec - start.tv_sec) * 1000000000 + (end.tv_nsec - start.tv_nsec);
}
#endif
