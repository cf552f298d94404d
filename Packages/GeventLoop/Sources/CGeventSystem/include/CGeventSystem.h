// The system calls, clocks and error names that Swift cannot import directly, each defined once in the repository.
// Functions that fail return the negated errno: reading `errno` from Swift after other code ran would be a race.
#pragma once

#include "gevent_clock.h"
#include "gevent_descriptors.h"
#include "gevent_epoll.h"
#include "gevent_errno.h"
#include "gevent_linked.h"
#include "gevent_processes.h"
#include "gevent_sockets.h"
