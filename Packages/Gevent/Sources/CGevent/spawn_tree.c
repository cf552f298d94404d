#include "gevent_spawn_tree.h"
#include "gevent_records.h"

static gevent_spawn_node *make_tree_node(gevent_hub *hub, void *owner) {
    gevent_spawn_node *tree_node = gevent_record_take(hub);
    *tree_node = (gevent_spawn_node){.owner = owner, .member_count = 1};
    gevent_list_init(&tree_node->earlier);
    return tree_node;
}

static gevent_spawn_tree *make_tree(gevent_hub *hub, void *store) {
    gevent_spawn_tree *tree = gevent_record_take(hub);
    *tree = (gevent_spawn_tree){.node_count = 1, .store = store};
    return tree;
}

uintptr_t gevent_spawn_node_make_root(gevent_hub *hub, void *owner) {
    return (uintptr_t)make_tree_node(hub, owner) | 1;
}

uintptr_t gevent_spawn_node_make_own(gevent_hub *hub, uintptr_t spawn_node, void *owner) {
    gevent_spawn_node *tree_node = make_tree_node(hub, owner);
    tree_node->parent = gevent_spawn_node_at(spawn_node);
    if (tree_node->parent && tree_node->parent->tree) {
        tree_node->tree = tree_node->parent->tree;
        tree_node->tree->node_count++;
    } else {
        tree_node->tree = make_tree(hub, NULL);
    }
    return (uintptr_t)tree_node | 1;
}

/// Removes a node from its tree. Returns the tree's store if that was the last node.
static void *leave_tree(gevent_hub *hub, gevent_spawn_tree *tree) {
    if (!tree || --tree->node_count > 0) return NULL;
    void *store = tree->store;
    gevent_record_release(hub, tree);
    return store;
}

/// Removes a member from a node. Returns the store of the node's tree if the tree is freed with the node.
static void *leave_node(gevent_hub *hub, gevent_spawn_node *tree_node) {
    if (!tree_node || --tree_node->member_count > 0) return NULL;
    void *store = leave_tree(hub, tree_node->tree);
    gevent_node_unlink(&tree_node->node);
    gevent_record_release(hub, tree_node);
    return store;
}

uintptr_t gevent_spawn_node_begin_tree(
    gevent_hub *hub, uintptr_t spawn_node, void *owner, void *store, void **dropped) {
    *dropped = NULL;
    gevent_spawn_node *old = gevent_spawn_node_at(spawn_node), *tree_node = make_tree_node(hub, owner);
    bool is_root = owner == hub->main.owner || owner == hub->root.owner;
    if (store || !is_root) tree_node->tree = make_tree(hub, store);
    uintptr_t made = (uintptr_t)tree_node | 1;
    if (!gevent_spawn_node_is_own(spawn_node)) {
        tree_node->parent = old;
        return made;
    }
    tree_node->parent = old->parent;
    old->parent = NULL;
    if (!gevent_list_is_empty(&old->earlier)) {
        tree_node->earlier = old->earlier;
        tree_node->earlier.next->previous = tree_node->earlier.previous->next = &tree_node->earlier;
        gevent_list_init(&old->earlier);
    }
    // The children keep their original node, which keeps its owner.
    gevent_list_append(&tree_node->earlier, &old->node);
    *dropped = leave_node(hub, old);
    return made;
}

void gevent_spawn_node_leave_slowly(gevent_hub *hub, uintptr_t spawn_node, void *dropped[2]) {
    gevent_spawn_node *tree_node = gevent_spawn_node_at(spawn_node), *parent = tree_node;
    dropped[0] = NULL;
    if (gevent_spawn_node_is_own(spawn_node)) {
        while (!gevent_list_is_empty(&tree_node->earlier)) {
            gevent_spawn_node *earlier = (gevent_spawn_node *)tree_node->earlier.next;
            gevent_node_unlink(&earlier->node);
            earlier->owner = NULL;
        }
        parent = tree_node->parent;
        tree_node->parent = NULL;
        tree_node->owner = NULL;
        dropped[0] = leave_node(hub, tree_node);
    }
    dropped[1] = leave_node(hub, parent);
}
