#define _GNU_SOURCE
#include <elf.h>
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

#include "gevent_symbolize.h"

// Exported by libswiftCore. The result is malloc'ed.
extern char *swift_demangle(const char *name, size_t length, char *output, size_t *output_size, uint32_t flags)
    __attribute__((weak));

/// A loaded file, mapped once and kept: reports come in bursts, and a process loads few files.
typedef struct image {
    struct image *next;
    uintptr_t base;
    char *path;
    const unsigned char *bytes;
    size_t size;
} image;

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static image *images = NULL;

typedef struct query {
    uintptr_t address, base;
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
        const char *path = info->dlpi_name && info->dlpi_name[0] ? info->dlpi_name : "/proc/self/exe";
        snprintf(wanted->path, sizeof wanted->path, "%s", path);
        return 1;
    }
    return 0;
}

static image *open_image(const query *wanted) {
    for (image *known = images; known; known = known->next)
        if (known->base == wanted->base && strcmp(known->path, wanted->path) == 0) return known;
    image *made = calloc(1, sizeof *made);
    if (!made) return NULL;
    made->base = wanted->base;
    made->path = strdup(wanted->path);
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
    made->next = images;
    images = made;
    return made;
}

/// The name of the function that covers `address`, an address as the file counts them, and its start.
static const char *find_symbol(const image *file, uintptr_t address, uintptr_t *start) {
    if (!file->bytes || file->size < sizeof(ElfW(Ehdr))) return NULL;
    const ElfW(Ehdr) *header = (const void *)file->bytes;
    if (memcmp(header->e_ident, ELFMAG, SELFMAG) != 0) return NULL;
    if (header->e_shoff + (size_t)header->e_shnum * sizeof(ElfW(Shdr)) > file->size) return NULL;
    const ElfW(Shdr) *sections = (const void *)(file->bytes + header->e_shoff);
    for (int pass = 0; pass < 2; pass++) {
        // The full table if the file was not stripped, else the dynamic one.
        uint32_t type = pass == 0 ? SHT_SYMTAB : SHT_DYNSYM;
        for (int s = 0; s < header->e_shnum; s++) {
            if (sections[s].sh_type != type || sections[s].sh_link >= header->e_shnum) continue;
            const ElfW(Shdr) *strings = &sections[sections[s].sh_link];
            if (sections[s].sh_offset + sections[s].sh_size > file->size) continue;
            if (strings->sh_offset + strings->sh_size > file->size) continue;
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

const char *gevent_symbolize(const void *return_address, char *text, size_t size) {
    // A return address may be the first byte after its function; the call is before it.
    query wanted = {.address = (uintptr_t)return_address - 1};
    if (!dl_iterate_phdr(find_file, &wanted)) {
        snprintf(text, size, "%p", return_address);
        return NULL;
    }
    pthread_mutex_lock(&lock);
    const image *file = open_image(&wanted);
    uintptr_t start = 0, offset = wanted.address - wanted.base;
    const char *name = file ? find_symbol(file, offset, &start) : NULL;
    if (name) {
        char *readable = swift_demangle ? swift_demangle(name, strlen(name), NULL, NULL, 0) : NULL;
        snprintf(text, size, "%s + %zu", readable ? readable : name, (size_t)(offset - start));
        free(readable);
    } else {
        snprintf(text, size, "%s+0x%zx", wanted.path, (size_t)offset);
    }
    pthread_mutex_unlock(&lock);
    return name;
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
