// Plain C on epoll: level-triggered, one buffer, no library.
#define _GNU_SOURCE
#include <pthread.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>

#include "../c-common/peer.h"

enum { BATCH = 256, BUFFER = 64 << 10 };

static void watch(int poller, int descriptor) {
    struct epoll_event event = {.events = EPOLLIN, .data.fd = descriptor};
    peer_check(epoll_ctl(poller, EPOLL_CTL_ADD, descriptor, &event) == 0, "epoll_ctl");
}

static void serve(bool echoes) {
    static char buffer[BUFFER];
    int poller = epoll_create1(EPOLL_CLOEXEC), listener = peer_listen(true);
    watch(poller, listener);
    watch(poller, STDIN_FILENO);
    struct epoll_event events[BATCH];
    for (;;) {
        int count = epoll_wait(poller, events, BATCH, -1);
        for (int i = 0; i < count; i++) {
            int descriptor = events[i].data.fd;
            if (descriptor == STDIN_FILENO) return;
            if (descriptor == listener) {
                int accepted;
                while ((accepted = accept4(listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC)) >= 0) {
                    if (!echoes) {
                        close(accepted);
                        continue;
                    }
                    peer_no_delay(accepted);
                    watch(poller, accepted);
                }
                continue;
            }
            ssize_t size = read(descriptor, buffer, sizeof buffer);
            if (size > 0)
                peer_check(write(descriptor, buffer, (size_t)size) == size || errno == EPIPE || errno == ECONNRESET, "write");
            else if (size == 0 || errno != EAGAIN)
                close(descriptor);
        }
    }
}

// MARK: Waking a sleeping loop from another thread

static int ping, pong;

static void *answer(void *argument) {
    int64_t rounds = *(int64_t *)argument;
    uint64_t value = 1;
    for (int64_t i = 0; i < rounds; i++) {
        peer_check(read(ping, &value, sizeof value) == sizeof value, "read");
        value = 1;
        peer_check(write(pong, &value, sizeof value) == sizeof value, "write");
    }
    return NULL;
}

/// The other thread wakes an epoll_wait through an eventfd, and is woken through another: a round trip.
static void wake(bool quick) {
    int64_t rounds = quick ? 20000 : 200000;
    ping = eventfd(0, EFD_CLOEXEC);
    pong = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    int poller = epoll_create1(EPOLL_CLOEXEC);
    watch(poller, pong);
    pthread_t thread;
    pthread_create(&thread, NULL, answer, &rounds);
    int64_t start = peer_now();
    for (int64_t i = 0; i < rounds; i++) {
        uint64_t value = 1;
        struct epoll_event event;
        peer_check(write(ping, &value, sizeof value) == sizeof value, "write");
        peer_check(epoll_wait(poller, &event, 1, -1) == 1, "epoll_wait");
        peer_check(read(pong, &value, sizeof value) == sizeof value, "read");
    }
    peer_report("post-sleeping", rounds, peer_now() - start);
    pthread_join(thread, NULL);
}

int main(int count, char **arguments) {
    static const peer_case cases[] = {{"post-sleeping", wake}};
    return peer_main(count, arguments, serve, cases, sizeof cases / sizeof *cases);
}
