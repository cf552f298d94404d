// The spawn tree: which greenlet spawned which. Each greenlet has a weak reference to its spawner, and shares a store
// with its whole tree, at a cost of one word and a few nanoseconds. A spawner and its children share one record, the
// spawn-tree node, which lives until the last of them is deallocated.
//
// A greenlet's `spawn_node` is one of
//   0              unknown: tracking is off;
//   a node         the greenlet has spawned nothing; the node is its spawner's, and the greenlet is a child there;
//   a node | 1     the node is the greenlet's own.
// When a spawner is deallocated, it leaves its own spawner's node. So no node keeps a chain of dead spawners alive.
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "gevent_list.h"

struct gevent_hub;

/// A tree of greenlets that share a store. The store is made on first access.
typedef struct gevent_spawn_tree {
    uint32_t node_count;  // spawn-tree nodes that belong to this tree
    void *store;          // a retained Swift object, or null
} gevent_spawn_tree;

typedef struct gevent_spawn_node {
    gevent_node node;     // in the `earlier` list of its owner's current node, once the owner has a newer one
    gevent_node earlier;  // the owner's earlier nodes that still have children
    void *owner;          // the spawner, not retained; null after it is deallocated
    struct gevent_spawn_node *parent;  // the node in which the owner is a child, or null
    gevent_spawn_tree *tree;      // null if each child starts a new tree, as the children of main do
    uint32_t member_count;  // the children, plus the owner while it is alive and this is its current node
} gevent_spawn_node;

static inline bool gevent_spawn_node_is_own(uintptr_t spawn_node) { return spawn_node & 1; }

static inline gevent_spawn_node *gevent_spawn_node_at(uintptr_t spawn_node) {
    return (gevent_spawn_node *)(spawn_node & ~(uintptr_t)1);
}

/// Makes the `spawn_node` of a greenlet that is the root of all trees: main, or the hub.
uintptr_t gevent_spawn_node_make_root(struct gevent_hub *hub, void *owner);

/// Makes a node of its own for the greenlet `owner`. Returns the greenlet's new `spawn_node`.
uintptr_t gevent_spawn_node_make_own(struct gevent_hub *hub, uintptr_t spawn_node, void *owner);

/// Returns the tree whose greenlets share a store with the greenlet of this `spawn_node`, or null.
static inline gevent_spawn_tree *gevent_spawn_node_tree(uintptr_t spawn_node) {
    return spawn_node ? gevent_spawn_node_at(spawn_node)->tree : NULL;
}

/// Starts a new tree with the greenlet `owner`. Returns its new `spawn_node`. Greenlets that it has spawned already
/// stay in their tree. `store` is a retained object for the new tree, or null to make one on first access. If `owner`
/// is main or the hub, null means that each of its children starts a new tree again.
///
/// Sets `*dropped` to a store that no greenlet shares any longer, or to null. Its deallocation may run user code, so
/// the caller releases it once the greenlet has its new `spawn_node`.
uintptr_t gevent_spawn_node_begin_tree(
    struct gevent_hub *hub, uintptr_t spawn_node, void *owner, void *store, void **dropped);

/// Adds a child to the greenlet of this `spawn_node`, which must have its own node. Returns the child's `spawn_node`.
static inline uintptr_t gevent_spawn_node_child(uintptr_t spawn_node) {
    gevent_spawn_node *tree_node = gevent_spawn_node_at(spawn_node);
    tree_node->member_count++;
    return (uintptr_t)tree_node;
}

/// Returns the spawner of the greenlet of this `spawn_node`, or null.
static inline void *gevent_spawn_node_spawner(uintptr_t spawn_node) {
    if (!spawn_node) return NULL;
    gevent_spawn_node *tree_node = gevent_spawn_node_at(spawn_node);
    if (gevent_spawn_node_is_own(spawn_node)) tree_node = tree_node->parent;
    return tree_node ? tree_node->owner : NULL;
}

/// Removes a greenlet that is being deallocated from its nodes. `hub` is null if the greenlet's hub is destroyed. Sets
/// `dropped` to the stores that no greenlet shares any longer, at most two, for the caller to release last.
void gevent_spawn_node_leave_slowly(struct gevent_hub *hub, uintptr_t spawn_node, void *dropped[2]);

/// The fast path of `gevent_spawn_node_leave_slowly`, if no memory has to be freed. Returns false if the slow path is
/// needed.
static inline bool gevent_spawn_node_leave(uintptr_t spawn_node) {
    if (gevent_spawn_node_is_own(spawn_node)) return false;
    gevent_spawn_node *tree_node = gevent_spawn_node_at(spawn_node);
    if (tree_node->member_count == 1) return false;
    tree_node->member_count--;
    return true;
}
