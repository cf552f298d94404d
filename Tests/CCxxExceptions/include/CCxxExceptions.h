// C++ code that calls back into greenlets while exceptions are in flight.
#pragma once

#include <stdbool.h>

#ifdef __cplusplus
extern "C" {
#endif

/// Calls `body` in the catch block of an exception. Returns whether the object was intact afterwards, and was thrown on
/// from there as the same one.
bool cxx_call_in_catch(int number, void (*body)(void *context), void *context);

/// Calls `body` in a destructor while an exception unwinds the stack. Returns whether the exception arrived.
bool cxx_call_while_unwinding(int number, void (*body)(void *context), void *context);

/// Whether the caller stands in a catch block or is being unwound, as far as the C++ runtime knows.
bool cxx_has_exceptions(void);

/// How many exception objects exist.
int cxx_living_exceptions(void);

#ifdef __cplusplus
}
#endif
