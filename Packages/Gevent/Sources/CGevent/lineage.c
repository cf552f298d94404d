#include "gevent_lineage.h"
#include "gevent_records.h"

static gevent_family *make_family(gevent_hub *hub, void *owner) {
    gevent_family *family = gevent_record_take(hub);
    *family = (gevent_family){.owner = owner, .member_count = 1};
    gevent_list_init(&family->earlier);
    return family;
}

static gevent_tree *make_tree(gevent_hub *hub, void *store) {
    gevent_tree *tree = gevent_record_take(hub);
    *tree = (gevent_tree){.family_count = 1, .store = store};
    return tree;
}

uintptr_t gevent_kin_make_root(gevent_hub *hub, void *owner) { return (uintptr_t)make_family(hub, owner) | 1; }

uintptr_t gevent_kin_make_own(gevent_hub *hub, uintptr_t kin, void *owner) {
    gevent_family *family = make_family(hub, owner);
    family->parent = gevent_kin_family(kin);
    if (family->parent && family->parent->tree) {
        family->tree = family->parent->tree;
        family->tree->family_count++;
    } else {
        family->tree = make_tree(hub, NULL);
    }
    return (uintptr_t)family | 1;
}

/// Returns the tree's store if this was its last family.
static void *leave_tree(gevent_hub *hub, gevent_tree *tree) {
    if (!tree || --tree->family_count > 0) return NULL;
    void *store = tree->store;
    gevent_record_give_back(hub, tree);
    return store;
}

/// One member less. Returns the store of the family's tree if that went with it.
static void *leave_family(gevent_hub *hub, gevent_family *family) {
    if (!family || --family->member_count > 0) return NULL;
    void *store = leave_tree(hub, family->tree);
    gevent_node_unlink(&family->node);
    gevent_record_give_back(hub, family);
    return store;
}

uintptr_t gevent_kin_begin_tree(gevent_hub *hub, uintptr_t kin, void *owner, void *store, void **dropped) {
    *dropped = NULL;
    gevent_family *old = gevent_kin_family(kin), *family = make_family(hub, owner);
    bool starts_every_tree = owner == hub->main.owner || owner == hub->root.owner;
    if (store || !starts_every_tree) family->tree = make_tree(hub, store);
    uintptr_t made = (uintptr_t)family | 1;
    if (!gevent_kin_is_own(kin)) {
        family->parent = old;
        return made;
    }
    family->parent = old->parent;
    old->parent = NULL;
    if (!gevent_list_is_empty(&old->earlier)) {
        family->earlier = old->earlier;
        family->earlier.next->previous = family->earlier.previous->next = &family->earlier;
        gevent_list_init(&old->earlier);
    }
    // The children keep the family they were born into, which keeps its owner.
    gevent_list_append(&family->earlier, &old->node);
    *dropped = leave_family(hub, old);
    return made;
}

void gevent_kin_leave_slowly(gevent_hub *hub, uintptr_t kin, void *dropped[2]) {
    gevent_family *family = gevent_kin_family(kin), *parent = family;
    dropped[0] = NULL;
    if (gevent_kin_is_own(kin)) {
        while (!gevent_list_is_empty(&family->earlier)) {
            gevent_family *earlier = (gevent_family *)family->earlier.next;
            gevent_node_unlink(&earlier->node);
            earlier->owner = NULL;
        }
        parent = family->parent;
        family->parent = NULL;
        family->owner = NULL;
        dropped[0] = leave_family(hub, family);
    }
    dropped[1] = leave_family(hub, parent);
}
