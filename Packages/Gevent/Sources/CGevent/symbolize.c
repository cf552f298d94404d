#define _GNU_SOURCE
#include <elf.h>
#include <errno.h>
#include <fcntl.h>
#include <link.h>
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "gevent_dwarf.h"
#include "gevent_symbolize.h"

// Exported by libswiftCore. The result is malloc'ed.
extern char *swift_demangle(const char *name, size_t length, char *output, size_t *output_size, uint32_t flags)
    __attribute__((weak));

/// A loaded file, mapped once and kept: reports come in bursts, and a process loads few files.
typedef struct image {
    struct image *next;
    uintptr_t base;
    char *path;
    const char *name;
    const unsigned char *bytes;
    size_t size;
    gevent_dwarf dwarf;
} image;

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static image *images = NULL;

typedef struct query {
    uintptr_t address, base;
    bool is_program;
    char path[512];
} query;

static int find_file(struct dl_phdr_info *info, size_t size, void *argument) {
    (void)size;
    query *wanted = argument;
    for (int i = 0; i < info->dlpi_phnum; i++) {
        const ElfW(Phdr) *header = &info->dlpi_phdr[i];
        uintptr_t start = info->dlpi_addr + header->p_vaddr;
        if (header->p_type != PT_LOAD || wanted->address < start || wanted->address >= start + header->p_memsz) continue;
        wanted->base = info->dlpi_addr;
        // The program itself has no name here.
        wanted->is_program = !info->dlpi_name || !info->dlpi_name[0];
        snprintf(wanted->path, sizeof wanted->path, "%s", wanted->is_program ? "/proc/self/exe" : info->dlpi_name);
        return 1;
    }
    return 0;
}

/// The section headers of a file, or null if it is not as it should be.
static const ElfW(Shdr) *sections_of(const image *file, size_t *count) {
    if (!file->bytes || file->size < sizeof(ElfW(Ehdr))) return NULL;
    const ElfW(Ehdr) *header = (const void *)file->bytes;
    if (memcmp(header->e_ident, ELFMAG, SELFMAG) != 0) return NULL;
    *count = header->e_shnum;
    if (header->e_shoff > file->size || *count * sizeof(ElfW(Shdr)) > file->size - header->e_shoff) return NULL;
    return (const void *)(file->bytes + header->e_shoff);
}

static bool is_in_file(const image *file, const ElfW(Shdr) *section) {
    return section->sh_type != SHT_NOBITS && section->sh_offset <= file->size
        && section->sh_size <= file->size - section->sh_offset;
}

/// Of compressed sections nothing is said; hardly any toolchain makes them unless asked to.
static void find_debug_sections(image *file) {
    size_t count = 0;
    const ElfW(Shdr) *sections = sections_of(file, &count);
    size_t names = sections ? ((const ElfW(Ehdr) *)file->bytes)->e_shstrndx : count;
    if (names >= count || !is_in_file(file, &sections[names])) return;
    const struct {
        const char *name;
        gevent_bytes *place;
    } wanted[] = {
        {".debug_info", &file->dwarf.info},
        {".debug_abbrev", &file->dwarf.abbreviations},
        {".debug_line", &file->dwarf.lines},
        {".debug_str", &file->dwarf.strings},
        {".debug_line_str", &file->dwarf.line_strings},
        {".debug_str_offsets", &file->dwarf.string_offsets},
        {".debug_addr", &file->dwarf.addresses},
        {".debug_ranges", &file->dwarf.ranges},
        {".debug_rnglists", &file->dwarf.range_lists},
    };
    for (size_t s = 0; s < count; s++) {
        if (!is_in_file(file, &sections[s]) || (sections[s].sh_flags & SHF_COMPRESSED)) continue;
        if (sections[s].sh_name >= sections[names].sh_size) continue;
        const char *name = (const char *)file->bytes + sections[names].sh_offset + sections[s].sh_name;
        size_t room = sections[names].sh_size - sections[s].sh_name;
        for (size_t w = 0; w < sizeof wanted / sizeof *wanted; w++) {
            if (strnlen(name, room) == room || strcmp(name, wanted[w].name) != 0) continue;
            *wanted[w].place = (gevent_bytes){file->bytes + sections[s].sh_offset, sections[s].sh_size};
        }
    }
}

static const char *last_component(const char *path) {
    const char *slash = strrchr(path, '/');
    return slash ? slash + 1 : path;
}

static image *open_image(const query *wanted) {
    for (image *open = images; open; open = open->next)
        if (open->base == wanted->base && strcmp(open->path, wanted->path) == 0) return open;
    image *made = calloc(1, sizeof *made);
    char *path = strdup(wanted->path);
    if (!made || !path) {
        free(made);
        free(path);
        return NULL;
    }
    made->base = wanted->base;
    made->path = path;
    made->name = last_component(wanted->is_program ? program_invocation_name : path);
    int file = open(wanted->path, O_RDONLY | O_CLOEXEC);
    struct stat status;
    if (file >= 0 && fstat(file, &status) == 0 && status.st_size > 0) {
        void *bytes = mmap(NULL, (size_t)status.st_size, PROT_READ, MAP_PRIVATE, file, 0);
        if (bytes != MAP_FAILED) {
            made->bytes = bytes;
            made->size = (size_t)status.st_size;
        }
    }
    if (file >= 0) close(file);
    find_debug_sections(made);
    made->next = images;
    images = made;
    return made;
}

/// The name of the function that covers `address`, an address as the file counts them, and its start.
static const char *find_symbol(const image *file, uintptr_t address, uintptr_t *start) {
    size_t section_count = 0;
    const ElfW(Shdr) *sections = sections_of(file, &section_count);
    if (!sections) return NULL;
    for (int pass = 0; pass < 2; pass++) {
        // The full table if the file was not stripped, else the dynamic one.
        uint32_t type = pass == 0 ? SHT_SYMTAB : SHT_DYNSYM;
        for (size_t s = 0; s < section_count; s++) {
            if (sections[s].sh_type != type || sections[s].sh_link >= section_count) continue;
            const ElfW(Shdr) *strings = &sections[sections[s].sh_link];
            if (!is_in_file(file, &sections[s]) || !is_in_file(file, strings)) continue;
            const ElfW(Sym) *symbols = (const void *)(file->bytes + sections[s].sh_offset);
            size_t count = sections[s].sh_size / sizeof *symbols;
            for (size_t i = 0; i < count; i++) {
                if (ELF64_ST_TYPE(symbols[i].st_info) != STT_FUNC || symbols[i].st_name >= strings->sh_size) continue;
                if (address < symbols[i].st_value || address >= symbols[i].st_value + symbols[i].st_size) continue;
                *start = symbols[i].st_value;
                return (const char *)file->bytes + strings->sh_offset + symbols[i].st_name;
            }
        }
    }
    return NULL;
}

static size_t find_places(const void *return_address, gevent_place *places) {
    // A return address may be the first byte after its function; the call is before it.
    query wanted = {.address = (uintptr_t)return_address - 1};
    places[0] = (gevent_place){.offset = (uintptr_t)return_address};
    image *file = dl_iterate_phdr(find_file, &wanted) ? open_image(&wanted) : NULL;
    if (!file) return 1;
    uintptr_t start = 0, offset = wanted.address - wanted.base;
    size_t count = gevent_dwarf_places(&file->dwarf, offset, places);
    gevent_place *function = &places[count ? count - 1 : 0];
    const char *symbol = find_symbol(file, offset, &start);
    if (symbol) function->symbol = symbol;
    for (size_t i = 0; i == 0 || i < count; i++) places[i].image = file->name;
    function->offset = symbol ? offset - start : offset;
    return count ? count : 1;
}

size_t gevent_places_of(const void *return_address, gevent_place places[GEVENT_PLACES_MOST]) {
    pthread_mutex_lock(&lock);
    size_t count = find_places(return_address, places);
    pthread_mutex_unlock(&lock);
    return count;
}

/// Without what the optimiser did to the function, which is long and tells its reader nothing.
static const char *without_specialization(const char *name) {
    static const char *const prefixes[] = {"generic specialization <", "function signature specialization <"};
    for (size_t i = 0; i < sizeof prefixes / sizeof *prefixes; i++) {
        if (strncmp(name, prefixes[i], strlen(prefixes[i])) != 0) continue;
        const char *at = name + strlen(prefixes[i]);
        // To the bracket that closes the prefix'; those of arrows close nothing.
        for (int depth = 1; *at && depth > 0; at++) depth += *at == '<' ? 1 : *at == '>' && at[-1] != '-' ? -1 : 0;
        if (strncmp(at, " of ", 4) == 0) return without_specialization(at + 4);
    }
    return name;
}

void gevent_place_text(const gevent_place *place, char *text, size_t size) {
    if (!place->symbol) {
        snprintf(text, size, "%s%s0x%zx", place->image ? place->image : "", place->image ? "+" : "", place->offset);
        return;
    }
    char *readable = swift_demangle ? swift_demangle(place->symbol, strlen(place->symbol), NULL, NULL, 0) : NULL;
    const char *name = readable ? without_specialization(readable) : place->symbol;
    if (place->file) snprintf(text, size, "%s (%s:%u)", name, place->file, place->line);
    else snprintf(text, size, "%s + %zu", name, place->offset);
    free(readable);
}

const void *gevent_function_start(const void *address) {
    query wanted = {.address = (uintptr_t)address};
    if (!dl_iterate_phdr(find_file, &wanted)) return NULL;
    pthread_mutex_lock(&lock);
    const image *file = open_image(&wanted);
    uintptr_t start = 0;
    const char *name = file ? find_symbol(file, wanted.address - wanted.base, &start) : NULL;
    pthread_mutex_unlock(&lock);
    return name ? (const void *)(wanted.base + start) : NULL;
}

typedef struct range {
    uintptr_t address;
    size_t size;
} range;

static int holds_code(struct dl_phdr_info *info, size_t size, void *argument) {
    (void)size;
    const range *wanted = argument;
    for (int i = 0; i < info->dlpi_phnum; i++) {
        const ElfW(Phdr) *header = &info->dlpi_phdr[i];
        uintptr_t start = info->dlpi_addr + header->p_vaddr;
        if (header->p_type != PT_LOAD || (header->p_flags & (PF_R | PF_X)) != (PF_R | PF_X)) continue;
        if (wanted->address < start || wanted->size > header->p_memsz) continue;
        if (wanted->address - start <= header->p_memsz - wanted->size) return 1;
    }
    return 0;
}

bool gevent_is_code(uintptr_t address, size_t size) {
    range wanted = {.address = address, .size = size};
    return dl_iterate_phdr(holds_code, &wanted) != 0;
}
