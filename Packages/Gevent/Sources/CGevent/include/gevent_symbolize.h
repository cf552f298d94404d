// Names for return addresses, from the symbol tables of the loaded files, so that static and stripped-down programs
// show more than dladdr would. For reports only: slow, and takes a lock.
#pragma once

#include <stddef.h>

/// Writes "function + offset", demangled if it is Swift's, or "file+0xoffset" if no symbol covers it. Returns the symbol
/// as the file has it, which stays valid, or null. Any thread.
const char *gevent_symbolize(const void *return_address, char *text, size_t size);
