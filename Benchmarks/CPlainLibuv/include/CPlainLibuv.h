#pragma once

#include <stdint.h>

/// Like plain_epoll_polls, on libuv.
int64_t plain_libuv_polls(const int *descriptors, int count, int rounds, int64_t *seen);
