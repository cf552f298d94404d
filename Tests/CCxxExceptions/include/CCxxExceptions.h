// C++ code that calls back into greenlets while exceptions are in flight.
#pragma once

#include <stdbool.h>

#ifdef __cplusplus
extern "C" {
#endif

/// Calls `body` in the catch block of an exception. Returns whether the exception object was intact afterwards and was
/// the same after being rethrown.
bool cxx_call_in_catch(int number, void (*body)(void *context), void *context);

/// Calls `body` in a destructor while an exception unwinds the stack. Returns whether the exception arrived.
bool cxx_call_while_unwinding(int number, void (*body)(void *context), void *context);

/// Returns whether, according to the C++ runtime, the caller is in a catch block or is being unwound.
bool cxx_has_exceptions(void);

/// Returns the number of exception objects that exist.
int cxx_living_exceptions(void);

#ifdef __cplusplus
}
#endif
