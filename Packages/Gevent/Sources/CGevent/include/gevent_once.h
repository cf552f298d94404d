// One-time initialisers of Swift: of globals and of static properties. One that parks has its greenlet's thread wait
// for itself as soon as a second greenlet touches the same variable: `swift_once` knows threads only.
#pragma once

#include <stddef.h>

struct gevent_context;

/// Writes the function that the call before `address` is in, as reports show it.
typedef void (*gevent_function_text)(const void *address, char *text, size_t size);

/// Sets how gevent_once_warn names a function; without it, an address stands in the warning. Any thread.
void gevent_once_set_function_text(gevent_function_text function);

/// The place among `frames`, innermost first, of the innermost one-time initialiser, or -1. It is recognised by its
/// caller, so the program needs no symbols. Any thread.
int gevent_once_find(void *const *frames, size_t count);

/// Prints, once for each initialiser, that the running greenlet, whose context it is, is about to park in one. Debug
/// builds call it at each park; in optimised ones it is not compiled.
void gevent_once_warn(const struct gevent_context *context);

#ifdef DEBUG
#define WARN_IN_INITIALIZER(context) gevent_once_warn(context)
#else
#define WARN_IN_INITIALIZER(context)
#endif
