// Who spawned whom. Each greenlet remembers its spawner weakly, and shares a store with its whole tree, for one word
// and a few nanoseconds: what a spawner and its children have in common is one record, which lives until the last of
// them goes.
//
// A greenlet's `spawn_node` is one of
//   0              unknown: tracking is off;
//   a tree_node       it has spawned nothing; the tree_node is its spawner's, and it is a child there;
//   a tree_node | 1   the tree_node is its own.
// A spawner that goes lets go of its own spawner's tree_node, so a tree_node never keeps another alive through the dead.
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "gevent_list.h"

struct gevent_hub;

/// A store that a tree of greenlets shares; made when it is first asked for.
typedef struct gevent_tree {
    uint32_t node_count;  // families it belongs to
    void *store;            // a retained Swift object, or null
} gevent_tree;

typedef struct gevent_spawn_node {
    gevent_node node;              // in the `earlier` of its owner's tree_node, once another has taken its place
    gevent_node earlier;           // the owner's earlier families that still have children
    void *owner;                   // the spawner, not retained; null when it is gone
    struct gevent_spawn_node *parent;  // the tree_node in which the owner is a child, or null
    gevent_tree *tree;             // null if each child begins a tree of its own, as the children of main do
    uint32_t member_count;         // the children, and the owner as long as it is there and has no other tree_node
} gevent_spawn_node;

static inline bool gevent_spawn_node_is_own(uintptr_t spawn_node) { return spawn_node & 1; }
static inline gevent_spawn_node *gevent_spawn_node_at(uintptr_t spawn_node) { return (gevent_spawn_node *)(spawn_node & ~(uintptr_t)1); }

/// The spawn_node of a greenlet that starts every tree: main, and the hub.
uintptr_t gevent_spawn_node_make_root(struct gevent_hub *hub, void *owner);

/// Gives the greenlet `owner` a tree_node of its own. Returns its new spawn_node.
uintptr_t gevent_spawn_node_make_own(struct gevent_hub *hub, uintptr_t spawn_node, void *owner);

/// The tree whose members share a store with the greenlet of this spawn_node, or null.
static inline gevent_tree *gevent_spawn_node_tree(uintptr_t spawn_node) { return spawn_node ? gevent_spawn_node_at(spawn_node)->tree : NULL; }

/// Begins a new tree with the greenlet `owner`; `store` is a retained object for it, or null for one to be made when it
/// is asked for. Those it has spawned stay where they are. Null given to main or the hub makes each child begin a tree
/// of its own again. Returns the new spawn_node.
///
/// A store that nobody shares any more is given back in `dropped`, else null. Whatever it holds may run code of its own
/// when it goes, so the caller releases it once the greenlet has its new spawn_node.
uintptr_t gevent_spawn_node_begin_tree(struct gevent_hub *hub, uintptr_t spawn_node, void *owner, void *store, void **dropped);

/// One more child of the greenlet whose spawn_node this is, own tree_node included. Returns the child's spawn_node.
static inline uintptr_t gevent_spawn_node_child(uintptr_t spawn_node) {
    gevent_spawn_node *tree_node = gevent_spawn_node_at(spawn_node);
    tree_node->member_count++;
    return (uintptr_t)tree_node;
}

/// Who spawned the greenlet of this spawn_node, or null.
static inline void *gevent_spawn_node_spawner(uintptr_t spawn_node) {
    if (!spawn_node) return NULL;
    gevent_spawn_node *tree_node = gevent_spawn_node_at(spawn_node);
    if (gevent_spawn_node_is_own(spawn_node)) tree_node = tree_node->parent;
    return tree_node ? tree_node->owner : NULL;
}

/// The greenlet of this spawn_node goes. `hub` is null if the greenlet's hub is gone. The stores that nobody shares any more
/// are given back in `dropped`, at most two, for the caller to release at the end.
void gevent_spawn_node_leave_slowly(struct gevent_hub *hub, uintptr_t spawn_node, void *dropped[2]);

/// The same where nothing is left to free. Returns false if there is.
static inline bool gevent_spawn_node_leave(uintptr_t spawn_node) {
    if (gevent_spawn_node_is_own(spawn_node)) return false;
    gevent_spawn_node *tree_node = gevent_spawn_node_at(spawn_node);
    if (tree_node->member_count == 1) return false;
    tree_node->member_count--;
    return true;
}
