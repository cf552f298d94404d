// Source lines for addresses, from the DWARF debug information (versions 2 to 5) that a file carries. Only what that
// takes: the line tables, and the functions with what was inlined into them. Follows the DWARF 5 standard, and 4 and
// before where they differ.
#pragma once

#include <stddef.h>
#include <stdint.h>

#include "gevent_symbolize.h"

typedef struct gevent_bytes {
    const unsigned char *start;
    size_t size;
} gevent_bytes;

/// The sections of one file, empty if it has none. They are looked at, never written, and believed in nothing: what
/// does not fit is as good as not there.
typedef struct gevent_dwarf {
    gevent_bytes info, abbreviations, lines, strings, line_strings, string_offsets, addresses, ranges, range_lists;
    struct gevent_dwarf_unit *units;  // those that were asked for, with what was found out about them
} gevent_dwarf;

/// Fills in `symbol`, `file` and `line` of what `address`, as the file counts them, lies in: innermost first what was
/// inlined there, then the function itself. Returns how many; 0 if nothing is known. Call one at a time.
size_t gevent_dwarf_places(gevent_dwarf *dwarf, uintptr_t address, gevent_place places[GEVENT_PLACES_MOST]);

/// Gives back what was found out.
void gevent_dwarf_close(gevent_dwarf *dwarf);
