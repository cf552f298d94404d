// Names for return addresses, from the symbol tables and the debug information of the loaded files, so that static and
// stripped-down programs show more than dladdr would. For reports only: slow, and takes a lock.
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/// A function that a call stands in. All texts stay valid.
typedef struct gevent_place {
    const char *symbol;  // as the file has it; null if nothing covers the address
    const char *file;    // the source file's last path component; null if nobody knows
    uint32_t line;
    size_t offset;       // from the start of the function, or of the image if there is no symbol
    const char *image;   // the loaded file's last path component; null if the address is in none
} gevent_place;

enum { GEVENT_PLACES_MOST = 16 };

/// What the call before `return_address` stands in: innermost first what was inlined there, and last the function
/// itself. Returns how many, at least one. Any thread.
size_t gevent_places_of(const void *return_address, gevent_place places[GEVENT_PLACES_MOST]);

/// Writes "function (file:line)", demangled if it is Swift's and without what the optimiser made of it, "function +
/// offset" if the line is not known, or "image+0xoffset". Any thread.
void gevent_place_text(const gevent_place *place, char *text, size_t size);

/// The start of the function that `address` lies in, or null if no symbol covers it. Any thread.
const void *gevent_function_start(const void *address);

/// Whether `size` bytes from `address` on belong to the code of a loaded file and can be read. Any thread.
bool gevent_is_code(uintptr_t address, size_t size);
