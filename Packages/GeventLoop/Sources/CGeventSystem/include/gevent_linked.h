// The list of modules that register themselves by being linked.
#pragma once

#include <stdbool.h>

/// Stores a function that registers the contents of a module, such as a loop or settings.
///
/// A constructor calls it: before `main`, when the Swift runtime may not be ready, or later on any thread when a
/// library is loaded. So it only stores the pointer. `gevent_run_registrars` calls the function.
void gevent_module_linked(void (*registrar)(void));

/// Calls every registrar stored since the last call, oldest first.
///
/// While they run, `gevent_is_running_registrars` returns true on this thread. Calls must not overlap; the Swift side
/// holds a lock around each call.
void gevent_run_registrars(void);

/// Returns whether this thread is inside `gevent_run_registrars`.
bool gevent_is_running_registrars(void);
