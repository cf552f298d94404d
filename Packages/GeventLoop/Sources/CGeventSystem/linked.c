#include "gevent_linked.h"

#include <stdatomic.h>
#include <stdlib.h>

// A lock-free stack of registrars. Constructors run before any lock can be created, and `dlopen` may run one on any
// thread at any time. Storing is therefore one compare-and-swap, and taking is one exchange of the whole list.
struct linked_module {
    void (*registrar)(void);
    struct linked_module *next;
};

static _Atomic(struct linked_module *) newest = NULL;

static __thread bool is_running = false;

void gevent_module_linked(void (*registrar)(void)) {
    struct linked_module *node = malloc(sizeof *node);
    if (node == NULL) {
        // Memory is exhausted before `main`, so the program could not have started. Dropping the module silently would
        // later be reported as "not linked", which would be wrong.
        abort();
    }
    node->registrar = registrar;
    node->next = atomic_load_explicit(&newest, memory_order_relaxed);
    // Release: the thread that takes the list must see the node's fields.
    while (!atomic_compare_exchange_weak_explicit(
        &newest, &node->next, node, memory_order_release, memory_order_relaxed)) {
    }
}

void gevent_run_registrars(void) {
    if (atomic_load_explicit(&newest, memory_order_relaxed) == NULL) {
        return;
    }
    struct linked_module *taken = atomic_exchange_explicit(&newest, NULL, memory_order_acquire);
    struct linked_module *oldest = NULL;
    while (taken != NULL) {
        struct linked_module *next = taken->next;
        taken->next = oldest;
        oldest = taken;
        taken = next;
    }
    is_running = true;
    while (oldest != NULL) {
        struct linked_module *next = oldest->next;
        oldest->registrar();
        free(oldest);
        oldest = next;
    }
    is_running = false;
}

bool gevent_is_running_registrars(void) { return is_running; }
