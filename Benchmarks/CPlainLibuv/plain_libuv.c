#include <stdlib.h>
#include <uv.h>

#include "CPlainLibuv.h"
#include "CPlainLoops.h"

typedef struct batch {
    plain_ready *items;
    int count;
} batch;

typedef struct watcher {
    uv_poll_t handle;
    int descriptor;
    batch *into;
} watcher;

static void is_ready(uv_poll_t *handle, int status, int events) {
    watcher *self = (watcher *)handle;
    uint8_t readiness =
        status < 0 ? 3 : (uint8_t)((events & UV_READABLE ? 1 : 0) | (events & UV_WRITABLE ? 2 : 0));
    self->into->items[self->into->count++] = (plain_ready){self->descriptor, readiness};
}

int64_t plain_libuv_polls(const int *descriptors, int count, int rounds, int64_t *seen) {
    uv_loop_t loop;
    watcher *watchers = calloc((size_t)count + 1, sizeof *watchers);
    batch into = {calloc((size_t)count + 1, sizeof(plain_ready)), 0};
    int64_t total = -1;
    *seen = 0;
    if (watchers && into.items && uv_loop_init(&loop) == 0) {
        for (int i = 0; i < count; i++) {
            watchers[i].descriptor = descriptors[i];
            watchers[i].into = &into;
            uv_poll_init(&loop, &watchers[i].handle, descriptors[i]);
            uv_poll_start(&watchers[i].handle, UV_READABLE, is_ready);
        }
        uv_run(&loop, UV_RUN_NOWAIT);  // registers them
        int64_t start = plain_now();
        for (int round = 0; round < rounds; round++) {
            into.count = 0;
            uv_run(&loop, UV_RUN_NOWAIT);
            *seen += into.count;
        }
        total = plain_now() - start;
        for (int i = 0; i < count; i++) uv_close((uv_handle_t *)&watchers[i].handle, NULL);
        uv_run(&loop, UV_RUN_DEFAULT);
        uv_loop_close(&loop);
    }
    free(watchers);
    free(into.items);
    return total;
}
