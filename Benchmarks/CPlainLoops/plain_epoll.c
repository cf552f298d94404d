#define _GNU_SOURCE
#include <stdlib.h>
#include <sys/epoll.h>
#include <unistd.h>

#include "CPlainLoops.h"

int64_t plain_epoll_polls(const int *descriptors, int count, int rounds, int64_t *seen) {
    int room = count > 256 ? count : 256;
    int loop = epoll_create1(EPOLL_CLOEXEC);
    struct epoll_event *events = calloc((size_t)room, sizeof *events);
    plain_ready *batch = calloc((size_t)room, sizeof *batch);
    int64_t total = -1;
    *seen = 0;
    if (loop >= 0 && events && batch) {
        for (int i = 0; i < count; i++) {
            struct epoll_event event = {.events = EPOLLIN, .data.u64 = (uint64_t)descriptors[i]};
            epoll_ctl(loop, EPOLL_CTL_ADD, descriptors[i], &event);
        }
        int64_t start = plain_now();
        for (int round = 0; round < rounds; round++) {
            struct timespec zero = {0};
            int got = epoll_pwait2(loop, events, room, &zero, NULL);
            for (int i = 0; i < got; i++) {
                uint32_t flags = events[i].events;
                uint8_t readiness = 0;
                if (flags & (EPOLLIN | EPOLLHUP | EPOLLERR)) readiness |= 1;
                if (flags & (EPOLLOUT | EPOLLHUP | EPOLLERR)) readiness |= 2;
                batch[i] = (plain_ready){(int)events[i].data.u64, readiness};
            }
            *seen += got > 0 ? got : 0;
            __asm__ volatile("" : : "r"(batch) : "memory");  // keeps the compiler from removing the batch
        }
        total = plain_now() - start;
    }
    free(events);
    free(batch);
    if (loop >= 0) close(loop);
    return total;
}
