// Plain C on libev.
#include <ev.h>
#include <fcntl.h>
#include <pthread.h>

#include "../c-common/peer.h"

static char buffer[64 << 10];
static bool echoes;

static void on_readable(struct ev_loop *loop, ev_io *watcher, int events) {
    (void)events;
    ssize_t size = read(watcher->fd, buffer, sizeof buffer);
    if (size > 0) {
        peer_check(write(watcher->fd, buffer, (size_t)size) == size || errno == EPIPE || errno == ECONNRESET, "write");
    } else if (size == 0 || errno != EAGAIN) {
        ev_io_stop(loop, watcher);
        close(watcher->fd);
        free(watcher);
    }
}

static void on_connection(struct ev_loop *loop, ev_io *listener, int events) {
    (void)events;
    int accepted;
    while ((accepted = accept(listener->fd, NULL, NULL)) >= 0) {
        if (!echoes) {
            close(accepted);
            continue;
        }
        fcntl(accepted, F_SETFL, O_NONBLOCK);
        peer_no_delay(accepted);
        ev_io *watcher = malloc(sizeof *watcher);
        ev_io_init(watcher, on_readable, accepted, EV_READ);
        ev_io_start(loop, watcher);
    }
}

static void on_standard_input(struct ev_loop *loop, ev_io *watcher, int events) {
    (void)watcher, (void)events;
    ev_break(loop, EVBREAK_ALL);
}

static void serve(bool does_echo) {
    echoes = does_echo;
    struct ev_loop *loop = ev_default_loop(EVBACKEND_EPOLL);
    ev_io listener, input;
    ev_io_init(&listener, on_connection, peer_listen(true), EV_READ);
    ev_io_start(loop, &listener);
    ev_io_init(&input, on_standard_input, STDIN_FILENO, EV_READ);
    ev_io_start(loop, &input);
    ev_run(loop, 0);
}

// MARK: Timers

static int64_t fired, expected;

static void on_timer(struct ev_loop *loop, ev_timer *watcher, int events) {
    (void)watcher, (void)events;
    if (++fired == expected) ev_break(loop, EVBREAK_ALL);
}

static void on_timer_once(struct ev_loop *loop, ev_timer *watcher, int events) {
    on_timer(loop, watcher, events);
    free(watcher);
}

/// Many timers: starts all of them, then cancels them.
static void timers(bool cancelling) {
    enum { count = 100000 };
    struct ev_loop *loop = ev_default_loop(EVBACKEND_EPOLL);
    ev_timer **timers = calloc((size_t)count, sizeof *timers);
    ev_now_update(loop);
    int64_t start = peer_now();
    for (int64_t i = 0; i < count; i++) {
        timers[i] = malloc(sizeof *timers[i]);
        ev_timer_init(timers[i], on_timer, 60 + (double)(i * 7919 % 600000) / 1000, 0);
        ev_timer_start(loop, timers[i]);
    }
    int64_t started = peer_now();
    for (int64_t i = 0; i < count; i++) ev_timer_stop(loop, timers[i]);
    int64_t cancelled = peer_now();
    if (cancelling)
        peer_report("timers-cancel", count, cancelled - started);
    else
        peer_report("timers-start", count, started - start);
}

static void timers_random(bool quick) {
    expected = quick ? 10000 : 100000;
    struct ev_loop *loop = ev_default_loop(EVBACKEND_EPOLL);
    int64_t start = peer_processor_now();
    ev_now_update(loop);
    for (int64_t i = 0; i < expected; i++) {
        ev_timer *timer = malloc(sizeof *timer);
        ev_timer_init(timer, on_timer_once, (double)peer_random_moment(expected) / 1e6, 0);
        ev_timer_start(loop, timer);
    }
    ev_run(loop, 0);
    peer_report("timers-random", expected, peer_processor_now() - start);
}

static void timer_start(bool quick) { (void)quick, timers(false); }
static void timer_cancel(bool quick) { (void)quick, timers(true); }

// MARK: Waking a sleeping loop from another thread

static ev_async woken;
static struct ev_loop *home;
static int64_t rounds, done;
static int ping[2];

static void *answer(void *argument) {
    (void)argument;
    char byte;
    while (read(ping[0], &byte, 1) == 1) ev_async_send(home, &woken);
    return NULL;
}

static void on_wake(struct ev_loop *loop, ev_async *watcher, int events) {
    (void)watcher, (void)events;
    if (++done == rounds) return ev_break(loop, EVBREAK_ALL);
    peer_check(write(ping[1], "x", 1) == 1, "write");
}

static void wake(bool quick) {
    rounds = quick ? 20000 : 200000;
    home = ev_default_loop(EVBACKEND_EPOLL);
    ev_async_init(&woken, on_wake);
    ev_async_start(home, &woken);
    peer_check(pipe(ping) == 0, "pipe");
    pthread_t thread;
    pthread_create(&thread, NULL, answer, NULL);
    int64_t start = peer_now();
    peer_check(write(ping[1], "x", 1) == 1, "write");
    ev_run(home, 0);
    peer_report("post-sleeping", rounds, peer_now() - start);
    close(ping[1]);
    pthread_join(thread, NULL);
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
