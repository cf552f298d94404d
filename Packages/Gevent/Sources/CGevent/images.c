#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <link.h>
#include <stdio.h>
#include <string.h>
#include <unwind.h>

#include "gevent_images.h"

// Exported by libswiftCore. The result is malloc'ed.
extern char *swift_demangle(const char *name, size_t length, char *output, size_t *output_size, uint32_t flags)
    __attribute__((weak));

typedef struct query {
    uintptr_t address;
    size_t size;
    uint32_t flags;  // required permissions of the segment
    gevent_image *image;  // filled in unless null
} query;

static void describe(const struct dl_phdr_info *info, gevent_image *image) {
    *image = (gevent_image){.bias = info->dlpi_addr, .start = UINTPTR_MAX};
    for (int i = 0; i < info->dlpi_phnum; i++) {
        const ElfW(Phdr) *header = &info->dlpi_phdr[i];
        if (header->p_type != PT_LOAD) continue;
        uintptr_t start = info->dlpi_addr + header->p_vaddr;
        if (start < image->start) image->start = start;
        if (start + header->p_memsz > image->end) image->end = start + header->p_memsz;
    }
    // The program has no name here, and its file may have been replaced since it started.
    bool is_program = !info->dlpi_name || !info->dlpi_name[0];
    const char *path = is_program ? program_invocation_name : info->dlpi_name;
    const char *slash = strrchr(path, '/');
    snprintf(image->name, sizeof image->name, "%s", slash ? slash + 1 : path);
    snprintf(image->path, sizeof image->path, "%s", is_program ? "/proc/self/exe" : path);
}

static int contains(struct dl_phdr_info *info, size_t size, void *argument) {
    (void)size;
    const query *wanted = argument;
    for (int i = 0; i < info->dlpi_phnum; i++) {
        const ElfW(Phdr) *header = &info->dlpi_phdr[i];
        uintptr_t start = info->dlpi_addr + header->p_vaddr;
        if (header->p_type != PT_LOAD || (header->p_flags & wanted->flags) != wanted->flags) continue;
        if (wanted->address < start || wanted->size > header->p_memsz) continue;
        if (wanted->address - start > header->p_memsz - wanted->size) continue;
        if (wanted->image) describe(info, wanted->image);
        return 1;
    }
    return 0;
}

bool gevent_find_image(uintptr_t address, gevent_image *image) {
    query wanted = {.address = address, .size = 1, .image = image};
    if (!dl_iterate_phdr(contains, &wanted)) return false;
    Dl_info info;
    if (dladdr((void *)address, &info) && info.dli_sname) {
        image->symbol = info.dli_sname;
        image->symbol_start = (uintptr_t)info.dli_saddr;
    }
    return true;
}

const void *gevent_function_start(const void *address) {
    // The function expects a return address and looks up the byte before it, so 1 is added.
    return _Unwind_FindEnclosingFunction((char *)address + 1);
}

bool gevent_is_code(uintptr_t address, size_t size) {
    query wanted = {.address = address, .size = size, .flags = PF_R | PF_X};
    return dl_iterate_phdr(contains, &wanted) != 0;
}

char *gevent_demangled(const char *name) {
    return swift_demangle ? swift_demangle(name, strlen(name), NULL, NULL, 0) : NULL;
}
