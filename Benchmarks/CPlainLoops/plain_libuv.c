#include "CPlainLoops.h"

#if __has_include(<uv.h>)
#include <stdlib.h>
#include <uv.h>

typedef struct ready {
    int descriptor;
    uint8_t readiness;
} ready;

static ready *batch;
static int used;

static void on_ready(uv_poll_t *handle, int status, int events) {
    (void)status;
    int descriptor = (int)(intptr_t)handle->data;
    batch[used++] =
        (ready){descriptor, (uint8_t)((events & UV_READABLE ? 1 : 0) | (events & UV_WRITABLE ? 2 : 0))};
}

int64_t plain_libuv_polls(const int *descriptors, int count, int rounds, int64_t *seen) {
    uv_loop_t loop;
    uv_loop_init(&loop);
    uv_poll_t *handles = calloc((size_t)count, sizeof *handles);
    batch = calloc((size_t)count, sizeof *batch);
    for (int i = 0; i < count; i++) {
        uv_poll_init(&loop, &handles[i], descriptors[i]);
        handles[i].data = (void *)(intptr_t)descriptors[i];
        uv_poll_start(&handles[i], UV_READABLE, on_ready);
    }
    *seen = 0;
    uint64_t start = uv_hrtime();
    for (int round = 0; round < rounds; round++) {
        used = 0;
        uv_run(&loop, UV_RUN_NOWAIT);
        *seen += used;
    }
    uint64_t end = uv_hrtime();
    for (int i = 0; i < count; i++) uv_close((uv_handle_t *)&handles[i], NULL);
    uv_run(&loop, UV_RUN_DEFAULT);
    uv_loop_close(&loop);
    free(handles);
    free(batch);
    return (int64_t)(end - start);
}
#endif
