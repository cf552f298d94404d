// Names for return addresses, from the symbol tables of the loaded files, so that static and stripped-down programs
// show more than dladdr would. For reports only: slow, and takes a lock.
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/// Writes "function + offset", demangled if it is Swift's, or "file+0xoffset" if no symbol covers it. Returns the symbol
/// as the file has it, which stays valid, or null. Any thread.
const char *gevent_symbolize(const void *return_address, char *text, size_t size);

/// The start of the function that `address` lies in, or null if no symbol covers it. Any thread.
const void *gevent_function_start(const void *address);

/// Whether `size` bytes from `address` on belong to the code of a loaded file and can be read. Any thread.
bool gevent_is_code(uintptr_t address, size_t size);
