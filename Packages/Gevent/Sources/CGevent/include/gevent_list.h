// An intrusive doubly linked list with a sentinel. Removal needs only the node, so any code that ends a wait can unlink
// the node without knowing its list.
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef struct gevent_node {
    struct gevent_node *next, *previous;
} gevent_node;

static inline void gevent_list_init(gevent_node *list) { list->next = list->previous = list; }

static inline bool gevent_list_is_empty(const gevent_node *list) { return list->next == list; }

/// Returns whether the node is in a list. A node that is in no list has null links.
static inline bool gevent_node_is_linked(const gevent_node *node) { return node->next != NULL; }

static inline void gevent_list_append(gevent_node *list, gevent_node *node) {
    node->next = list;
    node->previous = list->previous;
    list->previous->next = node;
    list->previous = node;
}

/// Removes the node from its list. No effect on a node that is in no list.
static inline void gevent_node_unlink(gevent_node *node) {
    if (!gevent_node_is_linked(node)) return;
    node->previous->next = node->next;
    node->next->previous = node->previous;
    node->next = node->previous = NULL;
}

/// The kind of a link: a waiter that is notified when something ends. The elements of a list are notified in
/// registration order, each in the way of its kind.
enum {
    GEVENT_LINK_WAKE = 0,    // payload: the gevent_context of the waiter
    GEVENT_LINK_MEMBER = 1,  // payload: a Swift EndCounter
    GEVENT_LINK_OBJECT = 2,  // payload: a retained Swift GreenletLink
    GEVENT_LINK_CALLBACK = 4,    // payload: a retained Swift CallbackWaiter, which queues its closure
    GEVENT_LINK_GROUP = 5,   // part of a gevent_member; payload: the retained Swift GreenletGroup
    GEVENT_LINK_CURSOR = 12, // marks the position of an iteration that notifies links

    // Contexts that wait for more than a notification:
    GEVENT_LINK_ACQUIRE = 6,     // wants a semaphore's permit; payload: its number in the order of choice
    GEVENT_LINK_PASSED_OVER = 7, // the same, but was chosen and then another greenlet took the permit
    GEVENT_LINK_GET = 8,         // wants an element; payload: memory for it on the waiter's stack
    GEVENT_LINK_PEEK = 9,        // wants a copy of an element; payload: likewise
    GEVENT_LINK_PUT = 10,         // has an element; payload: its address on the waiter's stack
    GEVENT_LINK_REFUSED = 11,    // GET, PEEK or PUT on a queue that was shut down

    // Links of a Swift EnlistedWaiter, which may wait for several objects at once:
    GEVENT_LINK_OBSERVE = 3,     // takes no value, and is only notified
    GEVENT_LINK_CHOSEN = 13,     // an object has chosen the waiter through this link
    GEVENT_LINK_WITHDRAWN = 14,  // no object can choose the waiter through this link any longer
};

typedef struct gevent_link {
    gevent_node node;  // first, so that a pointer to it is a pointer to its link
    void *payload;
    uint32_t kind;
    uint32_t place;  // in an EnlistedWaiter's array: the index of this link; otherwise 0
} gevent_link;

/// Returns the Swift EnlistedWaiter that owns this link. Element 0 of its array is in no list: its payload is the
/// waiter, and its `place` is the number of links.
static inline void *gevent_link_waiter(const gevent_link *link) { return (link - link->place)->payload; }

/// Returns whether an object may still choose the waiter through this link.
static inline bool gevent_link_is_waiting(const gevent_link *link) {
    return link->kind != GEVENT_LINK_CHOSEN && link->kind != GEVENT_LINK_WITHDRAWN;
}

/// Removes all links of an EnlistedWaiter from their lists, so that no object can choose it any longer.
static inline void gevent_links_withdraw(gevent_link *links) {
    for (uint32_t place = 1; place <= links->place; place++) {
        gevent_node_unlink(&links[place].node);
        if (links[place].kind != GEVENT_LINK_CHOSEN) links[place].kind = GEVENT_LINK_WITHDRAWN;
    }
}

/// The record of a greenlet's membership in a scoped group. It exists until the greenlet ends.
typedef struct gevent_member {
    gevent_link link;  // first, so that a pointer to it is a pointer to its member
    gevent_node node;  // in the group's list of members, in spawn order
    void *greenlet;    // retained
} gevent_member;

static inline gevent_member *gevent_member_of_node(gevent_node *node) {
    return (gevent_member *)((char *)node - offsetof(gevent_member, node));
}

/// The links of one greenlet. Made with the first link.
typedef struct gevent_links {
    gevent_node list;
} gevent_links;

static inline gevent_link *gevent_links_first(gevent_links *links) {
    return gevent_list_is_empty(&links->list) ? NULL : (gevent_link *)links->list.next;
}

static inline gevent_node *gevent_links_list(gevent_links *links) { return &links->list; }

/// Returns the membership of the greenlet with these links in a scoped group; null if it has none. It is always the
/// first link.
static inline gevent_member *gevent_links_member(gevent_links *links) {
    gevent_link *first = gevent_links_first(links);
    return first && first->kind == GEVENT_LINK_GROUP ? (gevent_member *)first : NULL;
}

/// Returns whether the program registered this link, and can cancel it until its closure is called.
static inline bool gevent_link_is_registration(const gevent_link *link) {
    return link->kind == GEVENT_LINK_OBJECT || link->kind == GEVENT_LINK_CALLBACK;
}

/// Inserts `cursor` before the first link.
static inline void gevent_links_begin(gevent_links *links, gevent_link *cursor) {
    cursor->kind = GEVENT_LINK_CURSOR;
    gevent_list_append(links->list.next, &cursor->node);
}

/// Moves `cursor` past the next link and returns that link; null at the end. Links may be added and removed between
/// calls.
static inline gevent_link *gevent_links_next(gevent_links *links, gevent_link *cursor) {
    gevent_node *next = cursor->node.next;
    if (next == &links->list) return NULL;
    gevent_node_unlink(&cursor->node);
    gevent_list_append(next->next, &cursor->node);
    return (gevent_link *)next;
}

/// Returns the first registration of the program, skipping waiters; null if there is none.
static inline gevent_link *gevent_links_first_registration(gevent_links *links) {
    for (gevent_node *node = links->list.next; node != &links->list; node = node->next) {
        gevent_link *link = (gevent_link *)node;
        if (gevent_link_is_registration(link)) return link;
    }
    return NULL;
}
