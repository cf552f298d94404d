// Detects one-time initializers of Swift globals and static properties that park. If an initializer parks, and a second
// greenlet of its thread accesses the same variable, the thread deadlocks with itself, because `swift_once` only knows
// threads.
#pragma once

#include <stddef.h>

struct gevent_context;

/// Writes the name of the function that contains the call before `address`, as reports show it.
typedef void (*gevent_function_text)(const void *address, char *text, size_t size);

/// Sets the function that names functions in the warning. Without it the warning shows an address. Any thread.
void gevent_once_set_function_text(gevent_function_text function);

/// Returns the index in `frames` (innermost first) of the innermost one-time initializer, or -1. It is recognized by
/// its caller, so the program needs no symbols. Any thread.
int gevent_once_find(void *const *frames, size_t count);

/// Warns, once per initializer, that the running greenlet is about to park in it. `context` is the greenlet's. Debug
/// builds call it at each park; optimized builds do not compile it.
void gevent_once_warn(const struct gevent_context *context);

#ifdef DEBUG
#define WARN_IN_INITIALIZER(context) gevent_once_warn(context)
#else
#define WARN_IN_INITIALIZER(context)
#endif
