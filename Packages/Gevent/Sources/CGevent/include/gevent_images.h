// Loaded files and the functions in them, as the dynamic loader and the unwind tables know them. Reports read names and
// source lines through Swift's Runtime module. Every function here may be called on any thread.
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/// A loaded file, and what it exports at an address.
typedef struct gevent_image {
    uintptr_t bias;        // what the loader added to the addresses in the file
    uintptr_t start, end;  // of its segments in memory
    char path[512];        // where the file can be read
    char name[128];        // its last path component, for reports
    const char *symbol;    // the exported function that contains the address, or null; valid while the file is loaded
    uintptr_t symbol_start;
} gevent_image;

/// Describes the loaded file whose segments contain `address`. Returns false if there is none.
bool gevent_find_image(uintptr_t address, gevent_image *image);

/// The start of the function that contains `address`, or null if the unwind tables have no entry for it. A function
/// that calls nothing and has no frame may have no entry.
const void *gevent_function_start(const void *address);

/// Whether `size` bytes from `address` on belong to the code of a loaded file and can be read.
bool gevent_is_code(uintptr_t address, size_t size);

/// The readable form of a mangled Swift name, for the caller to free, or null if it is no such name.
char *gevent_demangled(const char *name);
