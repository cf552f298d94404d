// The list of modules that announce themselves because they are linked.
#pragma once

#include <stdbool.h>

/// Stores a function that registers what a module has: a loop, settings.
///
/// A constructor calls it, before `main` and before anything may be assumed of the Swift runtime, or on any thread when
/// a library is loaded later. So it only stores the pointer. `gevent_run_registrars` calls the function.
void gevent_module_linked(void (*registrar)(void));

/// Calls every registrar stored since the last call, oldest first.
///
/// While they run, `gevent_is_running_registrars` is true on this thread. Calls must not overlap; the Swift side holds
/// a lock around it.
void gevent_run_registrars(void);

/// Whether this thread is inside `gevent_run_registrars`.
bool gevent_is_running_registrars(void);
