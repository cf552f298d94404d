// Plain C on libuv.
#include <uv.h>

#include "../c-common/peer.h"

static char buffer[64 << 10];
static bool echoes;

typedef struct write_request {
    uv_write_t request;
    char data[];
} write_request;

static void give_buffer(uv_handle_t *handle, size_t suggested, uv_buf_t *result) {
    (void)handle, (void)suggested;
    *result = uv_buf_init(buffer, sizeof buffer);
}

static void on_closed(uv_handle_t *handle) { free(handle); }

static void on_written(uv_write_t *request, int status) {
    (void)status;
    free(request);
}

static void on_read(uv_stream_t *stream, ssize_t size, const uv_buf_t *data) {
    if (size == 0) return;
    if (size < 0) return uv_close((uv_handle_t *)stream, on_closed);
    uv_buf_t part = uv_buf_init(data->base, (unsigned)size);
    int written = uv_try_write(stream, &part, 1);
    if (written == size) return;
    if (written < 0) written = 0;
    write_request *rest = malloc(sizeof *rest + (size_t)(size - written));
    memcpy(rest->data, data->base + written, (size_t)(size - written));
    part = uv_buf_init(rest->data, (unsigned)(size - written));
    uv_write(&rest->request, stream, &part, 1, on_written);
}

static void on_connection(uv_stream_t *listener, int status) {
    if (status < 0) return;
    uv_tcp_t *client = malloc(sizeof *client);
    uv_tcp_init(listener->loop, client);
    if (uv_accept(listener, (uv_stream_t *)client) != 0 || !echoes) return uv_close((uv_handle_t *)client, on_closed);
    uv_tcp_nodelay(client, 1);
    uv_read_start((uv_stream_t *)client, give_buffer, on_read);
}

static void on_standard_input(uv_poll_t *handle, int status, int events) {
    (void)status, (void)events;
    uv_stop(handle->loop);
}

static void serve(bool does_echo) {
    echoes = does_echo;
    uv_loop_t *loop = uv_default_loop();
    uv_tcp_t listener;
    uv_tcp_init(loop, &listener);
    uv_tcp_open(&listener, peer_listen(true));
    peer_check(uv_listen((uv_stream_t *)&listener, 4096, on_connection) == 0, "uv_listen");
    uv_poll_t input;
    if (uv_poll_init(loop, &input, STDIN_FILENO) == 0) uv_poll_start(&input, UV_READABLE, on_standard_input);
    uv_run(loop, UV_RUN_DEFAULT);
}

// MARK: Timers

static int64_t fired, expected;

static void on_timer(uv_timer_t *timer) {
    if (++fired == expected) uv_stop(timer->loop);
}

static void on_timer_once(uv_timer_t *timer) {
    on_timer(timer);
    uv_close((uv_handle_t *)timer, on_closed);
}

/// Many timers: starts all of them, then cancels them.
static void timers(bool cancelling) {
    enum { count = 100000 };
    uv_loop_t *loop = uv_default_loop();
    uv_timer_t **timers = calloc((size_t)count, sizeof *timers);
    uv_update_time(loop);
    int64_t start = peer_now();
    for (int64_t i = 0; i < count; i++) {
        timers[i] = malloc(sizeof *timers[i]);
        uv_timer_init(loop, timers[i]);
        uv_timer_start(timers[i], on_timer, (uint64_t)(60000 + i * 7919 % 600000), 0);
    }
    int64_t started = peer_now();
    for (int64_t i = 0; i < count; i++) uv_timer_stop(timers[i]);
    int64_t cancelled = peer_now();
    if (cancelling)
        peer_report("timers-cancel", count, cancelled - started);
    else
        peer_report("timers-start", count, started - start);
}

static void timers_random(bool quick) {
    expected = quick ? 10000 : 100000;
    uv_loop_t *loop = uv_default_loop();
    int64_t start = peer_processor_now();
    uv_update_time(loop);
    for (int64_t i = 0; i < expected; i++) {
        uv_timer_t *timer = malloc(sizeof *timer);
        uv_timer_init(loop, timer);
        // libuv's timers have a resolution of a millisecond.
        uv_timer_start(timer, on_timer_once, (uint64_t)(peer_random_moment(expected) + 999) / 1000, 0);
    }
    uv_run(loop, UV_RUN_DEFAULT);
    peer_report("timers-random", expected, peer_processor_now() - start);
}

static void timer_start(bool quick) { (void)quick, timers(false); }
static void timer_cancel(bool quick) { (void)quick, timers(true); }

// MARK: Waking a sleeping loop from another thread

static uv_async_t woken;
static int64_t rounds, done;
static int ping[2];

static void answer(void *argument) {
    (void)argument;
    char byte;
    while (read(ping[0], &byte, 1) == 1) uv_async_send(&woken);
}

static void on_wake(uv_async_t *handle) {
    if (++done == rounds) return uv_stop(handle->loop);
    peer_check(write(ping[1], "x", 1) == 1, "write");
}

static void wake(bool quick) {
    rounds = quick ? 20000 : 200000;
    uv_loop_t *loop = uv_default_loop();
    uv_async_init(loop, &woken, on_wake);
    peer_check(pipe(ping) == 0, "pipe");
    uv_thread_t thread;
    uv_thread_create(&thread, answer, NULL);
    int64_t start = peer_now();
    peer_check(write(ping[1], "x", 1) == 1, "write");
    uv_run(loop, UV_RUN_DEFAULT);
    peer_report("post-sleeping", rounds, peer_now() - start);
    close(ping[1]);
    uv_thread_join(&thread);
}

int main(int count, char **arguments) {
    static const peer_case cases[] = {
        {"timers-start", timer_start},
        {"timers-cancel", timer_cancel},
        {"timers-random", timers_random},
        {"post-sleeping", wake},
    };
    return peer_main(count, arguments, serve, cases, sizeof cases / sizeof *cases);
}
