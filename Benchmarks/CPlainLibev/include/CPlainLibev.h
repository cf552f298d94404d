#pragma once

#include <stdint.h>

/// Like plain_epoll_polls, on libev.
int64_t plain_libev_polls(const int *descriptors, int count, int rounds, int64_t *seen);
