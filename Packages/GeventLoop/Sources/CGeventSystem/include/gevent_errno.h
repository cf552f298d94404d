// The names of error numbers.
#pragma once

#include <stddef.h>

/// "ECONNREFUSED", or null for a number that the C library has no name for. Static text.
const char *gevent_errno_name(int code);

/// "Connection refused", or null. Static text.
const char *gevent_errno_text(int code);
