// Who spawned whom. Each greenlet remembers its spawner weakly, and shares a store with its whole tree, for one word
// and a few nanoseconds: what a spawner and its children have in common is one record, which lives until the last of
// them goes.
//
// A greenlet's `kin` is one of
//   0              unknown: tracking is off;
//   a family       it has spawned nothing; the family is its spawner's, and it is a child there;
//   a family | 1   the family is its own.
// A spawner that goes lets go of its own spawner's family, so a family never keeps another alive through the dead.
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "gevent_list.h"

struct gevent_hub;

/// A store that a tree of greenlets shares; made when it is first asked for.
typedef struct gevent_tree {
    uint32_t family_count;  // families it belongs to
    void *store;            // a retained Swift object, or null
} gevent_tree;

typedef struct gevent_family {
    gevent_node node;              // in the `earlier` of its owner's family, once another has taken its place
    gevent_node earlier;           // the owner's earlier families that still have children
    void *owner;                   // the spawner, not retained; null when it is gone
    struct gevent_family *parent;  // the family in which the owner is a child, or null
    gevent_tree *tree;             // null if each child begins a tree of its own, as the children of main do
    uint32_t member_count;         // the children, and the owner as long as it is there and has no other family
} gevent_family;

static inline bool gevent_kin_is_own(uintptr_t kin) { return kin & 1; }
static inline gevent_family *gevent_kin_family(uintptr_t kin) { return (gevent_family *)(kin & ~(uintptr_t)1); }

/// The kin of a greenlet that starts every tree: main, and the hub.
uintptr_t gevent_kin_make_root(struct gevent_hub *hub, void *owner);

/// Gives the greenlet `owner` a family of its own. Returns its new kin.
uintptr_t gevent_kin_make_own(struct gevent_hub *hub, uintptr_t kin, void *owner);

/// The tree whose members share a store with the greenlet of this kin, or null.
static inline gevent_tree *gevent_kin_tree(uintptr_t kin) { return kin ? gevent_kin_family(kin)->tree : NULL; }

/// Begins a new tree with the greenlet `owner`; `store` is a retained object for it, or null for one to be made when it
/// is asked for. Those it has spawned stay where they are. Null given to main or the hub makes each child begin a tree
/// of its own again. Returns the new kin.
///
/// A store that nobody shares any more is given back in `dropped`, else null. Whatever it holds may run code of its own
/// when it goes, so the caller releases it once the greenlet has its new kin.
uintptr_t gevent_kin_begin_tree(struct gevent_hub *hub, uintptr_t kin, void *owner, void *store, void **dropped);

/// One more child of the greenlet whose kin this is, own family included. Returns the child's kin.
static inline uintptr_t gevent_kin_child(uintptr_t kin) {
    gevent_family *family = gevent_kin_family(kin);
    family->member_count++;
    return (uintptr_t)family;
}

/// Who spawned the greenlet of this kin, or null.
static inline void *gevent_kin_spawner(uintptr_t kin) {
    if (!kin) return NULL;
    gevent_family *family = gevent_kin_family(kin);
    if (gevent_kin_is_own(kin)) family = family->parent;
    return family ? family->owner : NULL;
}

/// The greenlet of this kin goes. `hub` is null if the greenlet's hub is gone. The stores that nobody shares any more
/// are given back in `dropped`, at most two, for the caller to release at the end.
void gevent_kin_leave_slowly(struct gevent_hub *hub, uintptr_t kin, void *dropped[2]);

/// The same where nothing is left to free. Returns false if there is.
static inline bool gevent_kin_leave(uintptr_t kin) {
    if (gevent_kin_is_own(kin)) return false;
    gevent_family *family = gevent_kin_family(kin);
    if (family->member_count == 1) return false;
    family->member_count--;
    return true;
}
