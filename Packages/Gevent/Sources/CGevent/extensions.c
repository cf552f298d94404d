#include "gevent_extensions.h"

#include <stdatomic.h>
#include <stdlib.h>

enum { MOST = 16 };

static void (*installers[MOST])(void);
static atomic_int linked_count;
static int installed_count;

void gevent_extension_linked(void (*install)(void)) {
    int index = atomic_fetch_add(&linked_count, 1);
    if (index >= MOST) abort();
    installers[index] = install;
}

void gevent_extensions_install(void) {
    while (installed_count < atomic_load(&linked_count)) installers[installed_count++]();
}
