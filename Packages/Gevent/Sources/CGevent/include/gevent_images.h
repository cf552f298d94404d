// Loaded files and their functions, from the dynamic loader and the unwind tables. Reports look up names and source
// lines through Swift's Runtime module. All functions here may be called on any thread.
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/// A loaded file, and the exported symbol at an address.
typedef struct gevent_image {
    uintptr_t bias;        // what the loader added to the addresses in the file
    uintptr_t start, end;  // of its segments in memory
    char path[512];        // a path where the file can be read
    char name[128];        // its last path component, for reports
    const char *symbol;    // the exported function that contains the address, or null; valid while the file is loaded
    uintptr_t symbol_start;
} gevent_image;

/// Describes the loaded file whose segments contain `address`. Returns false if there is none.
bool gevent_find_image(uintptr_t address, gevent_image *image);

/// Returns the start of the function that contains `address`, or null if the unwind tables have no entry for it. A
/// function that calls nothing and has no frame may have no entry.
const void *gevent_function_start(const void *address);

/// Returns whether the `size` bytes from `address` are readable code of a loaded file.
bool gevent_is_code(uintptr_t address, size_t size);

/// Returns the demangled form of a Swift name, which the caller frees; null if it is not a mangled Swift name.
char *gevent_demangled(const char *name);
