#include "gevent_dwarf.h"

#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

// MARK: reading

/// A place in a section. Whoever reads past the end gets zeros, and `is_bad` says so.
typedef struct reader {
    const unsigned char *at, *end;
    bool is_bad;
} reader;

static reader read_from(gevent_bytes section, size_t offset) {
    if (offset > section.size) return (reader){.is_bad = true};
    return (reader){.at = section.start + offset, .end = section.start + section.size};
}

static size_t remaining(const reader *from) { return (size_t)(from->end - from->at); }

static void skip(reader *from, uint64_t count) {
    if (count > remaining(from)) {
        from->is_bad = true;
        count = remaining(from);
    }
    from->at += count;
}

/// Of 1 to 8 bytes, in the machine's order: what is loaded is the machine's own.
static uint64_t read_number(reader *from, unsigned size) {
    uint64_t value = 0;
    const unsigned char *bytes = from->at;
    skip(from, size);
    if (from->is_bad || size > sizeof value) return 0;
    memcpy(&value, bytes, size);
    return value;
}

static uint64_t read_unsigned(reader *from) {
    uint64_t value = 0;
    for (unsigned shift = 0;; shift += 7) {
        uint64_t byte = read_number(from, 1);
        if (shift < 64) value |= (byte & 0x7f) << shift;
        if (!(byte & 0x80)) return value;
    }
}

static int64_t read_signed(reader *from) {
    uint64_t value = 0;
    for (unsigned shift = 0;;) {
        uint64_t byte = read_number(from, 1);
        if (shift < 64) value |= (byte & 0x7f) << shift;
        shift += 7;
        if (byte & 0x80) continue;
        if ((byte & 0x40) && shift < 64) value |= ~(uint64_t)0 << shift;
        return (int64_t)value;
    }
}

/// Null if it does not end.
static const char *read_text(reader *from) {
    const unsigned char *text = from->at;
    const unsigned char *end = from->is_bad ? NULL : memchr(text, 0, remaining(from));
    if (!end) {
        from->is_bad = true;
        return NULL;
    }
    from->at = end + 1;
    return (const char *)text;
}

static const char *text_at(gevent_bytes section, uint64_t offset) {
    reader from = read_from(section, offset);
    return read_text(&from);
}

/// The size of offsets in what begins here, with its length read: 8 in the 64-bit form, which is rare.
static unsigned read_length(reader *from) {
    unsigned offset_size = 4;
    uint64_t length = read_number(from, 4);
    if (length == 0xffffffff) {
        offset_size = 8;
        length = read_number(from, 8);
    }
    if (length > remaining(from)) from->is_bad = true;
    else from->end = from->at + length;
    return offset_size;
}

// MARK: units

/// A function, or a part of one, that has code of its own.
typedef struct function {
    uintptr_t start, end;
    size_t entry;  // the offset of its entry in the information
} function;

/// One compilation.
typedef struct gevent_dwarf_unit {
    struct gevent_dwarf_unit *next;
    size_t start, entries, end;  // offsets in the information
    uint64_t abbreviations;
    unsigned version, offset_size, address_size;
    uint64_t line_table, string_offsets_base, address_base, range_lists_base;
    bool has_line_table;
    uintptr_t low;
    // Found out when the first address of it is asked for:
    bool is_indexed;
    const unsigned char **abbreviation_table;  // by code; null where there is none
    size_t abbreviation_count;
    function *functions;
    size_t function_count, function_capacity;
} unit;

enum {
    TAG_INLINED = 0x1d,
    TAG_SUBPROGRAM = 0x2e,

    AT_NAME = 0x03,
    AT_STATEMENTS = 0x10,
    AT_LOW = 0x11,
    AT_HIGH = 0x12,
    AT_ORIGIN = 0x31,
    AT_SPECIFICATION = 0x47,
    AT_RANGES = 0x55,
    AT_CALL_FILE = 0x58,
    AT_CALL_LINE = 0x59,
    AT_LINKAGE_NAME = 0x6e,
    AT_STRING_OFFSETS_BASE = 0x72,
    AT_ADDRESS_BASE = 0x73,
    AT_RANGE_LISTS_BASE = 0x74,
};

/// The forms of attributes, by what they take.
enum {
    FORM_ADDRESS = 0x01,
    FORM_BLOCK2 = 0x03,
    FORM_BLOCK4 = 0x04,
    FORM_DATA2 = 0x05,
    FORM_DATA4 = 0x06,
    FORM_DATA8 = 0x07,
    FORM_STRING = 0x08,
    FORM_BLOCK = 0x09,
    FORM_BLOCK1 = 0x0a,
    FORM_DATA1 = 0x0b,
    FORM_FLAG = 0x0c,
    FORM_SIGNED = 0x0d,
    FORM_STRING_POINTER = 0x0e,
    FORM_UNSIGNED = 0x0f,
    FORM_REFERENCE_ANYWHERE = 0x10,
    FORM_REFERENCE1 = 0x11,
    FORM_REFERENCE2 = 0x12,
    FORM_REFERENCE4 = 0x13,
    FORM_REFERENCE8 = 0x14,
    FORM_REFERENCE = 0x15,
    FORM_INDIRECT = 0x16,
    FORM_OFFSET = 0x17,
    FORM_EXPRESSION = 0x18,
    FORM_PRESENT = 0x19,
    FORM_STRING_INDEX = 0x1a,
    FORM_ADDRESS_INDEX = 0x1b,
    FORM_DATA16 = 0x1e,
    FORM_LINE_STRING = 0x1f,
    FORM_SIGNATURE = 0x20,
    FORM_IMPLICIT = 0x21,
    FORM_LOCATION_LIST_INDEX = 0x22,
    FORM_RANGE_LIST_INDEX = 0x23,
    FORM_STRING_INDEX1 = 0x25,
    FORM_STRING_INDEX4 = 0x28,
    FORM_ADDRESS_INDEX1 = 0x29,
    FORM_ADDRESS_INDEX4 = 0x2c,
};

typedef struct value {
    uint64_t number;
    const char *text;
    uint64_t form;
} value;

static uint64_t indexed(gevent_bytes section, uint64_t base, uint64_t index, unsigned size) {
    if (base > section.size || index > section.size) return 0;
    reader from = read_from(section, (size_t)(base + index * size));
    return read_number(&from, size);
}

static const char *indexed_text(const gevent_dwarf *dwarf, const unit *of, uint64_t index) {
    uint64_t offset = indexed(dwarf->string_offsets, of->string_offsets_base, index, of->offset_size);
    return text_at(dwarf->strings, offset);
}

/// An attribute's value. What nobody asks for is skipped rightly, and has no meaning. A form that is not known makes
/// the reader bad, since nobody knows where the next one begins.
static value read_value(const gevent_dwarf *dwarf, const unit *of, reader *from, uint64_t form, int64_t implicit) {
    value it = {.form = form};
    switch (form) {
    case FORM_ADDRESS: it.number = read_number(from, of->address_size); break;
    case FORM_DATA1: case FORM_FLAG: case FORM_REFERENCE1: it.number = read_number(from, 1); break;
    case FORM_DATA2: case FORM_REFERENCE2: it.number = read_number(from, 2); break;
    case FORM_DATA4: case FORM_REFERENCE4: it.number = read_number(from, 4); break;
    case FORM_DATA8: case FORM_REFERENCE8: case FORM_SIGNATURE: it.number = read_number(from, 8); break;
    case FORM_DATA16: skip(from, 16); break;
    case FORM_SIGNED: it.number = (uint64_t)read_signed(from); break;
    case FORM_UNSIGNED: case FORM_REFERENCE: case FORM_LOCATION_LIST_INDEX: case FORM_RANGE_LIST_INDEX:
        it.number = read_unsigned(from);
        break;
    case FORM_OFFSET: it.number = read_number(from, of->offset_size); break;
    case FORM_REFERENCE_ANYWHERE:
        it.number = read_number(from, of->version == 2 ? of->address_size : of->offset_size);
        break;
    case FORM_PRESENT: it.number = 1; break;
    case FORM_IMPLICIT: it.number = (uint64_t)implicit; break;
    case FORM_STRING: it.text = read_text(from); break;
    case FORM_STRING_POINTER: it.text = text_at(dwarf->strings, read_number(from, of->offset_size)); break;
    case FORM_LINE_STRING: it.text = text_at(dwarf->line_strings, read_number(from, of->offset_size)); break;
    case FORM_STRING_INDEX: it.text = indexed_text(dwarf, of, read_unsigned(from)); break;
    case FORM_ADDRESS_INDEX:
        it.number = indexed(dwarf->addresses, of->address_base, read_unsigned(from), of->address_size);
        break;
    case FORM_BLOCK: case FORM_EXPRESSION: skip(from, read_unsigned(from)); break;
    case FORM_BLOCK1: skip(from, read_number(from, 1)); break;
    case FORM_BLOCK2: skip(from, read_number(from, 2)); break;
    case FORM_BLOCK4: skip(from, read_number(from, 4)); break;
    case FORM_INDIRECT: {
        uint64_t actual = read_unsigned(from);
        // One of these again would go round.
        if (actual == FORM_INDIRECT || actual == FORM_IMPLICIT) from->is_bad = true;
        else it = read_value(dwarf, of, from, actual, 0);
        break;
    }
    default:
        if (form >= FORM_STRING_INDEX1 && form <= FORM_STRING_INDEX4) {
            it.text = indexed_text(dwarf, of, read_number(from, (unsigned)(form - FORM_STRING_INDEX1) + 1));
        } else if (form >= FORM_ADDRESS_INDEX1 && form <= FORM_ADDRESS_INDEX4) {
            uint64_t index = read_number(from, (unsigned)(form - FORM_ADDRESS_INDEX1) + 1);
            it.number = indexed(dwarf->addresses, of->address_base, index, of->address_size);
        } else {
            from->is_bad = true;
        }
    }
    return it;
}

static bool is_address(uint64_t form) {
    return form == FORM_ADDRESS || form == FORM_ADDRESS_INDEX
        || (form >= FORM_ADDRESS_INDEX1 && form <= FORM_ADDRESS_INDEX4);
}

/// What is wanted of an entry.
typedef struct entry {
    uint64_t tag;  // 0: the end of a list of children
    bool has_children;
    bool has_low, has_high, has_ranges, has_statements;
    uint64_t low, high, ranges, statements;
    uint64_t ranges_form;
    bool high_is_length;
    const char *name, *linkage_name;
    size_t origin;  // an offset in the information; 0: none
    uint64_t call_file, call_line;
    uint64_t string_offsets_base, address_base, range_lists_base;
} entry;

static void take_attribute(const unit *of, entry *it, uint64_t attribute, value found) {
    switch (attribute) {
    case AT_NAME: it->name = found.text; break;
    case AT_LINKAGE_NAME: it->linkage_name = found.text; break;
    case AT_LOW: it->has_low = true; it->low = found.number; break;
    case AT_HIGH:
        it->has_high = true;
        it->high = found.number;
        it->high_is_length = !is_address(found.form);
        break;
    case AT_RANGES: it->has_ranges = true; it->ranges = found.number; it->ranges_form = found.form; break;
    case AT_STATEMENTS: it->has_statements = true; it->statements = found.number; break;
    case AT_ORIGIN: case AT_SPECIFICATION:
        if (found.form == FORM_REFERENCE_ANYWHERE) it->origin = (size_t)found.number;
        else if (found.form != FORM_SIGNATURE) it->origin = of->start + (size_t)found.number;
        break;
    case AT_CALL_FILE: it->call_file = found.number; break;
    case AT_CALL_LINE: it->call_line = found.number; break;
    case AT_STRING_OFFSETS_BASE: it->string_offsets_base = found.number; break;
    case AT_ADDRESS_BASE: it->address_base = found.number; break;
    case AT_RANGE_LISTS_BASE: it->range_lists_base = found.number; break;
    }
}

/// Reads an entry whose abbreviation is at `abbreviation`, behind its code.
static entry read_entry_as(
    const gevent_dwarf *dwarf, const unit *of, reader *from, reader abbreviation
) {
    entry it = {.tag = read_unsigned(&abbreviation)};
    it.has_children = read_number(&abbreviation, 1) != 0;
    while (!from->is_bad) {
        uint64_t attribute = read_unsigned(&abbreviation), form = read_unsigned(&abbreviation);
        int64_t implicit = form == FORM_IMPLICIT ? read_signed(&abbreviation) : 0;
        if (abbreviation.is_bad) from->is_bad = true;
        if (attribute == 0 && form == 0) break;
        take_attribute(of, &it, attribute, read_value(dwarf, of, from, form, implicit));
    }
    if (it.tag == 0) from->is_bad = true;
    return it;
}

static entry read_entry(const gevent_dwarf *dwarf, const unit *of, reader *from) {
    uint64_t code = read_unsigned(from);
    if (code == 0) return (entry){0};
    if (code >= of->abbreviation_count || !of->abbreviation_table[code]) {
        from->is_bad = true;
        return (entry){0};
    }
    gevent_bytes section = dwarf->abbreviations;
    return read_entry_as(dwarf, of, from, read_from(section, (size_t)(of->abbreviation_table[code] - section.start)));
}

/// Skips the attributes of an abbreviation, from behind its code.
static void skip_abbreviation(reader *from) {
    read_unsigned(from);
    skip(from, 1);
    while (!from->is_bad) {
        uint64_t attribute = read_unsigned(from), form = read_unsigned(from);
        if (form == FORM_IMPLICIT) read_signed(from);
        if (attribute == 0 && form == 0) return;
    }
}

/// Codes are small numbers in what compilers write; others are not looked up.
enum { CODES_MOST = 1 << 16 };

static bool index_abbreviations(const gevent_dwarf *dwarf, unit *of) {
    for (int pass = 0; pass < 2; pass++) {
        reader from = read_from(dwarf->abbreviations, of->abbreviations);
        while (!from.is_bad) {
            uint64_t code = read_unsigned(&from);
            if (code == 0) break;
            if (code < CODES_MOST) {
                if (pass == 1) of->abbreviation_table[code] = from.at;
                else if (code >= of->abbreviation_count) of->abbreviation_count = code + 1;
            }
            skip_abbreviation(&from);
        }
        if (pass == 1) break;
        of->abbreviation_table = calloc(of->abbreviation_count + 1, sizeof *of->abbreviation_table);
        if (!of->abbreviation_table) {
            of->abbreviation_count = 0;
            return false;
        }
    }
    return true;
}

// MARK: ranges

/// Calls `each` with every range of addresses that an entry covers, until it says true, and returns whether it did.
typedef bool range_user(void *argument, uintptr_t start, uintptr_t end);

static bool each_range_of_list(
    const gevent_dwarf *dwarf, const unit *of, const entry *it, range_user *each, void *argument
) {
    uint64_t offset = it->ranges;
    if (it->ranges_form == FORM_RANGE_LIST_INDEX)
        offset = of->range_lists_base + indexed(dwarf->range_lists, of->range_lists_base, offset, of->offset_size);
    reader from = read_from(dwarf->range_lists, (size_t)offset);
    uint64_t base = of->low;
    while (!from.is_bad) {
        uint64_t kind = read_number(&from, 1), start = 0, end = 0;
#define ADDRESS_AT(index) indexed(dwarf->addresses, of->address_base, index, of->address_size)
        switch (kind) {
        case 1: base = ADDRESS_AT(read_unsigned(&from)); continue;
        case 2: start = ADDRESS_AT(read_unsigned(&from)); end = ADDRESS_AT(read_unsigned(&from)); break;
        case 3: start = ADDRESS_AT(read_unsigned(&from)); end = start + read_unsigned(&from); break;
        case 4: start = base + read_unsigned(&from); end = base + read_unsigned(&from); break;
        case 5: base = read_number(&from, of->address_size); continue;
        case 6: start = read_number(&from, of->address_size); end = read_number(&from, of->address_size); break;
        case 7: start = read_number(&from, of->address_size); end = start + read_unsigned(&from); break;
        default: return false;
        }
#undef ADDRESS_AT
        if (!from.is_bad && each(argument, start, end)) return true;
    }
    return false;
}

static bool each_old_range(
    const gevent_dwarf *dwarf, const unit *of, const entry *it, range_user *each, void *argument
) {
    reader from = read_from(dwarf->ranges, (size_t)it->ranges);
    uint64_t base = of->low, largest = of->address_size == 8 ? UINT64_MAX : UINT32_MAX;
    while (!from.is_bad) {
        uint64_t start = read_number(&from, of->address_size), end = read_number(&from, of->address_size);
        if (start == 0 && end == 0) return false;
        if (start == largest) base = end;
        else if (!from.is_bad && each(argument, base + start, base + end)) return true;
    }
    return false;
}

static bool each_range(const gevent_dwarf *dwarf, const unit *of, const entry *it, range_user *each, void *argument) {
    if (it->has_ranges && of->version >= 5) return each_range_of_list(dwarf, of, it, each, argument);
    if (it->has_ranges) return each_old_range(dwarf, of, it, each, argument);
    if (!it->has_low || !it->has_high) return false;
    return each(argument, it->low, it->high_is_length ? it->low + it->high : it->high);
}

static bool covers(void *argument, uintptr_t start, uintptr_t end) {
    uintptr_t address = *(uintptr_t *)argument;
    // What the linker dropped is said to begin at 0.
    return start != 0 && address >= start && address < end;
}

// MARK: finding the unit

/// Reads the head of the unit at `start` and its first entry, which says what it covers. False if there is no more.
static bool read_unit(const gevent_dwarf *dwarf, size_t start, unit *made, entry *first) {
    reader from = read_from(dwarf->info, start);
    if (from.is_bad || remaining(&from) == 0) return false;
    *made = (unit){.start = start};
    made->offset_size = read_length(&from);
    if (from.is_bad) return false;
    made->end = (size_t)(from.end - dwarf->info.start);
    made->version = (unsigned)read_number(&from, 2);
    if (made->version >= 5) {
        uint64_t kind = read_number(&from, 1);
        made->address_size = (unsigned)read_number(&from, 1);
        made->abbreviations = read_number(&from, made->offset_size);
        // Skeletons and split units have an identifier here, type units a signature and an offset.
        if (kind == 4 || kind == 5) skip(&from, 8);
        if (kind == 2 || kind == 6) skip(&from, 8 + made->offset_size);
    } else {
        made->abbreviations = read_number(&from, made->offset_size);
        made->address_size = (unsigned)read_number(&from, 1);
    }
    *first = (entry){0};
    if (from.is_bad || made->version < 2 || made->version > 5) return true;
    if (made->address_size != 8 && made->address_size != 4) return true;
    made->entries = (size_t)(from.at - dwarf->info.start);
    // The first abbreviation is nearly always the first entry's, so the table is not read for it.
    reader abbreviation = read_from(dwarf->abbreviations, made->abbreviations);
    uint64_t code = read_unsigned(&from), candidate;
    while ((candidate = read_unsigned(&abbreviation)) != code && candidate != 0 && !abbreviation.is_bad)
        skip_abbreviation(&abbreviation);
    if (code == 0 || candidate != code || abbreviation.is_bad) return true;
    reader again = from;
    // Twice, since addresses and texts by index need the bases, which may come behind them.
    for (int pass = 0; pass < 2; pass++) {
        again = from;
        *first = read_entry_as(dwarf, made, &again, abbreviation);
        made->string_offsets_base = first->string_offsets_base;
        made->address_base = first->address_base;
        made->range_lists_base = first->range_lists_base;
    }
    if (again.is_bad) *first = (entry){0};
    made->low = first->low;
    made->has_line_table = first->has_statements;
    made->line_table = first->statements;
    return true;
}

static unit *find_unit(gevent_dwarf *dwarf, uintptr_t address) {
    unit found;
    entry first;
    for (size_t start = 0; read_unit(dwarf, start, &found, &first); start = found.end) {
        if (!first.tag || !each_range(dwarf, &found, &first, covers, &address)) continue;
        for (unit *known = dwarf->units; known; known = known->next)
            if (known->start == start) return known;
        unit *made = malloc(sizeof *made);
        if (!made) return NULL;
        *made = found;
        made->next = dwarf->units;
        dwarf->units = made;
        return made;
    }
    return NULL;
}

/// The unit that the entry at `offset` belongs to, in `room` if it is another than `of`.
static const unit *unit_of_entry(const gevent_dwarf *dwarf, const unit *of, size_t offset, unit *room) {
    if (offset >= of->start && offset < of->end) return of;
    entry first;
    for (size_t start = 0; read_unit(dwarf, start, room, &first); start = room->end)
        if (offset >= room->entries && offset < room->end) return room;
    return NULL;
}

// MARK: functions

typedef struct adding {
    unit *to;
    size_t entry;
} adding;

static bool add_function(void *argument, uintptr_t start, uintptr_t end) {
    adding *what = argument;
    unit *to = what->to;
    if (start == 0 || start >= end) return false;
    if (to->function_count == to->function_capacity) {
        size_t capacity = to->function_capacity ? 2 * to->function_capacity : 64;
        function *larger = realloc(to->functions, capacity * sizeof *larger);
        if (!larger) return true;
        to->functions = larger;
        to->function_capacity = capacity;
    }
    to->functions[to->function_count++] = (function){.start = start, .end = end, .entry = what->entry};
    return false;
}

/// Goes through a unit once and remembers its functions, so that an address needs no more than its own.
static void index_unit(const gevent_dwarf *dwarf, unit *it) {
    if (it->is_indexed) return;
    it->is_indexed = true;
    if (!index_abbreviations(dwarf, it)) return;
    reader from = read_from(dwarf->info, it->entries);
    from.end = dwarf->info.start + it->end;
    while (!from.is_bad && remaining(&from) > 0) {
        adding what = {.to = it, .entry = (size_t)(from.at - dwarf->info.start)};
        entry found = read_entry(dwarf, it, &from);
        if (found.tag == TAG_SUBPROGRAM && !from.is_bad) each_range(dwarf, it, &found, add_function, &what);
    }
}

/// The name that a linker would know it by, else the one in the source. Follows references, a few of them.
static const char *name_of(const gevent_dwarf *dwarf, const unit *of, const entry *it) {
    const char *name = it->name;
    size_t origin = it->origin;
    if (it->linkage_name) return it->linkage_name;
    unit room;
    for (int step = 0; step < 4 && origin; step++) {
        const unit *home = unit_of_entry(dwarf, of, origin, &room);
        if (!home) break;
        unit indexed = *home;
        bool is_mine = !indexed.abbreviation_table;
        if (is_mine && !index_abbreviations(dwarf, &indexed)) break;
        reader from = read_from(dwarf->info, origin);
        entry referred = read_entry(dwarf, &indexed, &from);
        if (is_mine) free(indexed.abbreviation_table);
        if (from.is_bad) break;
        if (referred.linkage_name) return referred.linkage_name;
        if (!name) name = referred.name;
        origin = referred.origin;
    }
    return name;
}

// MARK: lines

/// The head of a line table, and what its program needs.
typedef struct line_table {
    reader program;
    uint64_t minimum_length;
    int line_base;
    uint64_t line_range, opcode_base;
    const unsigned char *operand_counts;
    // The names of files, from one of these on:
    reader files;
    unsigned version, offset_size;
    // From version 5 on, of what an entry consists.
    reader file_format;
    uint64_t file_format_count, file_count;
} line_table;

/// Skips or reads the entries of a version 5 directory or file table up to the one at `wanted`, whose path is returned.
static const char *formatted_entry(
    const gevent_dwarf *dwarf, const unit *of, reader *entries, reader format, uint64_t format_count, uint64_t count,
    uint64_t wanted
) {
    // Some forms take no room, but then one would not need a table.
    if (count > remaining(entries)) entries->is_bad = true;
    for (uint64_t index = 0; index < count && !entries->is_bad; index++) {
        reader fields = format;
        const char *path = NULL;
        for (uint64_t field = 0; field < format_count && !entries->is_bad; field++) {
            uint64_t kind = read_unsigned(&fields), form = read_unsigned(&fields);
            if (fields.is_bad) return NULL;
            value found = read_value(dwarf, of, entries, form, 0);
            if (kind == 1) path = found.text;
        }
        if (index == wanted) return path;
    }
    return NULL;
}

static bool open_line_table(const gevent_dwarf *dwarf, const unit *of, line_table *table) {
    *table = (line_table){0};
    if (!of->has_line_table) return false;
    reader from = read_from(dwarf->lines, (size_t)of->line_table);
    table->offset_size = read_length(&from);
    table->version = (unsigned)read_number(&from, 2);
    if (from.is_bad || table->version < 2 || table->version > 5) return false;
    if (table->version >= 5) skip(&from, 2);
    uint64_t length = read_number(&from, table->offset_size);
    table->program = from;
    skip(&table->program, length);
    table->minimum_length = read_number(&from, 1);
    // More than one operation an instruction is for machines that are none of ours.
    if (table->version >= 4) skip(&from, 1);
    skip(&from, 1);
    table->line_base = (int8_t)read_number(&from, 1);
    table->line_range = read_number(&from, 1);
    table->opcode_base = read_number(&from, 1);
    table->operand_counts = from.at;
    skip(&from, table->opcode_base ? table->opcode_base - 1 : 0);
    if (table->line_range == 0 || table->opcode_base == 0 || from.is_bad || table->program.is_bad) return false;
    if (table->version < 5) {
        for (const char *folder = read_text(&from); folder && *folder;) folder = read_text(&from);
        table->files = from;
        return !from.is_bad;
    }
    uint64_t folder_fields = read_number(&from, 1);
    reader folder_format = from;
    for (uint64_t i = 0; i < 2 * folder_fields; i++) read_unsigned(&from);
    uint64_t folders = read_unsigned(&from);
    formatted_entry(dwarf, of, &from, folder_format, folder_fields, folders, UINT64_MAX);
    table->file_format_count = read_number(&from, 1);
    table->file_format = from;
    for (uint64_t i = 0; i < 2 * table->file_format_count; i++) read_unsigned(&from);
    table->file_count = read_unsigned(&from);
    table->files = from;
    return !from.is_bad;
}

/// The last component of a file's path; null if there is no such file, or if the compiler made it up.
static const char *file_name(const gevent_dwarf *dwarf, const unit *of, const line_table *table, uint64_t number) {
    reader from = table->files;
    const char *path = NULL;
    if (table->version >= 5) {
        path = formatted_entry(
            dwarf, of, &from, table->file_format, table->file_format_count, table->file_count, number);
    } else {
        // They count from 1.
        for (uint64_t index = 1; index <= number; index++) {
            path = read_text(&from);
            if (!path || !*path) return NULL;
            for (int field = 0; field < 3; field++) read_unsigned(&from);
        }
    }
    if (!path) return NULL;
    const char *slash = strrchr(path, '/');
    const char *name = slash ? slash + 1 : path;
    return *name && *name != '<' ? name : NULL;
}

typedef struct row {
    uint64_t address, file, line;
} row;

/// Runs the table's program and finds the row that covers `address`. If it has no line, the compiler made that code up;
/// `nearest` is the last row before it in the function, which begins at `start`, that has one.
static row find_row(const line_table *table, uintptr_t address, uintptr_t start, row *nearest) {
    reader from = table->program;
    row now = {.file = 1, .line = 1}, last = now, best = {0};
    *nearest = best;
    bool is_in_sequence = false;
    while (!from.is_bad && remaining(&from) > 0) {
        bool emits = false, ends = false;
        uint64_t code = read_number(&from, 1);
        if (code >= table->opcode_base) {
            uint64_t adjusted = code - table->opcode_base;
            now.address += adjusted / table->line_range * table->minimum_length;
            now.line += (uint64_t)(table->line_base + (int64_t)(adjusted % table->line_range));
            emits = true;
        } else if (code == 0) {
            uint64_t length = read_unsigned(&from);
            reader extended = from;
            skip(&from, length);
            if (length == 0 || from.is_bad) continue;
            extended.end = from.at;
            switch (read_number(&extended, 1)) {
            case 1: emits = ends = true; break;
            case 2: now.address = read_number(&extended, length == 5 ? 4 : 8); break;
            }
        } else {
            switch (code) {
            case 1: emits = true; break;
            case 2: now.address += read_unsigned(&from) * table->minimum_length; break;
            case 3: now.line += (uint64_t)read_signed(&from); break;
            case 4: now.file = read_unsigned(&from); break;
            case 8: now.address += (255 - table->opcode_base) / table->line_range * table->minimum_length; break;
            case 9: now.address += read_number(&from, 2); break;
            default:
                for (unsigned i = 0; i < table->operand_counts[code - 1]; i++) read_unsigned(&from);
            }
        }
        if (!emits) continue;
        // `last` covers what lies before this row. A sequence that begins at 0 was dropped by the linker.
        if (is_in_sequence && last.address && last.address < now.address) {
            if (address >= last.address && address < now.address) best = last;
            bool is_before = last.address >= start && last.address <= address;
            if (is_before && last.line && last.address >= nearest->address) *nearest = last;
        }
        is_in_sequence = !ends;
        last = now;
        if (ends) now = (row){.file = 1, .line = 1};
    }
    return best;
}

// MARK: places

/// The calls inlined around an address, from the function itself inwards. What lies deeper than this is left out, but
/// for the call that leads there.
enum { NEST_MOST = GEVENT_PLACES_MOST + 1 };
typedef struct nest {
    entry calls[NEST_MOST];
    size_t count;
} nest;

static void find_inlined(const gevent_dwarf *dwarf, const unit *of, size_t offset, uintptr_t address, nest *found) {
    reader from = read_from(dwarf->info, offset);
    from.end = dwarf->info.start + of->end;
    size_t depth = 0;
    do {
        entry it = read_entry(dwarf, of, &from);
        if (it.tag == 0) {
            if (depth > 0) depth--;
            continue;
        }
        // Those that cover the address lie within each other, and an outer one comes before an inner one.
        bool is_call = depth == 0 ? it.tag == TAG_SUBPROGRAM : it.tag == TAG_INLINED;
        if (is_call && found->count < NEST_MOST && each_range(dwarf, of, &it, covers, &address))
            found->calls[found->count++] = it;
        if (it.has_children) depth++;
    } while (depth > 0 && !from.is_bad && remaining(&from) > 0);
}

size_t gevent_dwarf_places(gevent_dwarf *dwarf, uintptr_t address, gevent_place places[GEVENT_PLACES_MOST]) {
    unit *of = find_unit(dwarf, address);
    if (!of) return 0;
    index_unit(dwarf, of);
    const function *within = NULL;
    for (size_t i = 0; i < of->function_count; i++) {
        const function *one = &of->functions[i];
        if (address < one->start || address >= one->end) continue;
        if (!within || one->end - one->start < within->end - within->start) within = one;
    }
    nest found = {.count = 0};
    if (within) find_inlined(dwarf, of, within->entry, address, &found);
    // Some functions have lines and are not described otherwise.
    if (found.count == 0) found.calls[found.count++] = (entry){0};
    line_table table;
    bool has_lines = open_line_table(dwarf, of, &table);
    row here = {0}, nearest = {0};
    if (has_lines) here = find_row(&table, address, within ? within->start : address, &nearest);
    // Good enough if all of it is one function's.
    if (here.line == 0 && found.count == 1) here = nearest;
    size_t count = 0;
    for (size_t i = found.count < NEST_MOST ? found.count : GEVENT_PLACES_MOST; i > 0; i--) {
        gevent_place *place = &places[count++];
        *place = (gevent_place){.symbol = name_of(dwarf, of, &found.calls[i - 1])};
        // The innermost is where the address itself is; each other one where it calls the one within.
        uint64_t file = i == found.count ? here.file : found.calls[i].call_file;
        uint64_t line = i == found.count ? here.line : found.calls[i].call_line;
        if (!has_lines || line == 0 || line > UINT32_MAX) continue;
        place->file = file_name(dwarf, of, &table, file);
        place->line = place->file ? (uint32_t)line : 0;
    }
    return count;
}

void gevent_dwarf_close(gevent_dwarf *dwarf) {
    while (dwarf->units) {
        unit *gone = dwarf->units;
        dwarf->units = gone->next;
        free(gone->abbreviation_table);
        free(gone->functions);
        free(gone);
    }
}
