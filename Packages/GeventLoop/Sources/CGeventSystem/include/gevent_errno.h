// The names of error numbers.
#pragma once

#include <stddef.h>

/// Returns a name such as "ECONNREFUSED", or NULL if the C library has none for the number. Static text.
const char *gevent_errno_name(int code);

/// Returns a description such as "Connection refused", or NULL. Static text.
const char *gevent_errno_text(int code);
