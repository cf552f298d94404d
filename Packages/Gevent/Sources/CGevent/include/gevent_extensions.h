// How a module above the core is found by the hub when it is linked, without being named.
#pragma once

/// Registers a function that `gevent_extensions_install` calls. Meant for `.init_array`: it only stores the pointer, so
/// it is safe before `main`, when neither locks nor the Swift runtime can be relied on.
void gevent_extension_linked(void (*install)(void));

/// Calls the registered functions, each once, in the order of their registration. Not concurrently.
void gevent_extensions_install(void);
