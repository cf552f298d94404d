// An intrusive doubly linked list with a sentinel: removal needs the node alone, so whoever ends a wait can unhook it
// without knowing which list it stands in.
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef struct gevent_node {
    struct gevent_node *next, *previous;
} gevent_node;

static inline void gevent_list_init(gevent_node *list) { list->next = list->previous = list; }

static inline bool gevent_list_is_empty(const gevent_node *list) { return list->next == list; }

/// A node that stands in no list has null links.
static inline bool gevent_node_is_linked(const gevent_node *node) { return node->next != NULL; }

static inline void gevent_list_append(gevent_node *list, gevent_node *node) {
    node->next = list;
    node->previous = list->previous;
    list->previous->next = node;
    list->previous = node;
}

/// Harmless for a node that stands in no list.
static inline void gevent_node_unlink(gevent_node *node) {
    if (!gevent_node_is_linked(node)) return;
    node->previous->next = node->next;
    node->next->previous = node->previous;
    node->next = node->previous = NULL;
}

/// What is to be told when something ends, in registration order: an element of a list whose members are told in
/// different ways.
enum {
    GEVENT_LINK_WAKE = 0,    // payload: the gevent_context that waits
    GEVENT_LINK_MEMBER = 1,  // payload: a Swift object that counts many ends
    GEVENT_LINK_OBJECT = 2,  // payload: a retained Swift GreenletLink
    GEVENT_LINK_SOON = 4,    // payload: a retained Swift CallbackWaiter, which queues its closure
    GEVENT_LINK_GROUP = 5,   // a gevent_member's; payload: the retained Swift GreenletGroup it is a member of
    GEVENT_LINK_CURSOR = 12, // marks how far a round of notifications has come

    // Contexts that wait for more than to be told:
    GEVENT_LINK_ACQUIRE = 6,     // wants a semaphore's permit; payload: its place among those who were chosen
    GEVENT_LINK_PASSED_OVER = 7, // the same, and was chosen when somebody else took the permit
    GEVENT_LINK_GET = 8,         // wants an element; payload: room for it on the waiter's stack
    GEVENT_LINK_PEEK = 9,        // wants a copy of an element; payload: likewise
    GEVENT_LINK_PUT = 10,         // has an element; payload: where it lies on the waiter's stack
    GEVENT_LINK_REFUSED = 11,    // one of these three whose queue was shut down

    // Links of a Swift EnlistedWaiter, which may wait for several objects at once:
    GEVENT_LINK_OBSERVE = 3,     // takes nothing, and is only notified
    GEVENT_LINK_CHOSEN = 13,     // an object has chosen the waiter by this link
    GEVENT_LINK_WITHDRAWN = 14,  // no object chooses the waiter by this link any more
};

typedef struct gevent_link {
    gevent_node node;  // first, so that a node is its link
    void *payload;
    uint32_t kind;
    uint32_t place;  // of an EnlistedWaiter's link: its index in the array; 0 for all others
} gevent_link;

/// The Swift EnlistedWaiter that owns this link. Element 0 of its array is in no list: it has the waiter as payload and
/// the number of links as place.
static inline void *gevent_link_waiter(const gevent_link *link) { return (link - link->place)->payload; }

/// Whether an object may still choose the waiter by this link.
static inline bool gevent_link_is_waiting(const gevent_link *link) {
    return link->kind != GEVENT_LINK_CHOSEN && link->kind != GEVENT_LINK_WITHDRAWN;
}

/// Removes all links of an EnlistedWaiter from their lists, so that nothing chooses it any more.
static inline void gevent_links_withdraw(gevent_link *links) {
    for (uint32_t place = 1; place <= links->place; place++) {
        gevent_node_unlink(&links[place].node);
        if (links[place].kind != GEVENT_LINK_CHOSEN) links[place].kind = GEVENT_LINK_WITHDRAWN;
    }
}

/// What a scoped group and a greenlet in it know of each other, until the greenlet ends.
typedef struct gevent_member {
    gevent_link link;  // first, so that a link of its kind is its member
    gevent_node node;  // among the members of the group, in the order in which they were spawned
    void *greenlet;    // retained
} gevent_member;

static inline gevent_member *gevent_member_of_node(gevent_node *node) {
    return (gevent_member *)((char *)node - offsetof(gevent_member, node));
}

/// The links of one greenlet, made when the first is added.
typedef struct gevent_links {
    gevent_node list;
} gevent_links;

static inline gevent_link *gevent_links_first(gevent_links *links) {
    return gevent_list_is_empty(&links->list) ? NULL : (gevent_link *)links->list.next;
}

static inline gevent_node *gevent_links_list(gevent_links *links) { return &links->list; }

/// What makes the greenlet with these links a member of a group; null if nothing does. It was there before all others.
static inline gevent_member *gevent_links_member(gevent_links *links) {
    gevent_link *first = gevent_links_first(links);
    return first && first->kind == GEVENT_LINK_GROUP ? (gevent_member *)first : NULL;
}

/// Whether a program made this link, and can remove it until its closure is called.
static inline bool gevent_link_is_registration(const gevent_link *link) {
    return link->kind == GEVENT_LINK_OBJECT || link->kind == GEVENT_LINK_SOON;
}

/// Puts `cursor` before the first link.
static inline void gevent_links_begin(gevent_links *links, gevent_link *cursor) {
    cursor->kind = GEVENT_LINK_CURSOR;
    gevent_list_append(links->list.next, &cursor->node);
}

/// Moves `cursor` past the next link and returns that; null at the end. Links may come and go between the calls.
static inline gevent_link *gevent_links_next(gevent_links *links, gevent_link *cursor) {
    gevent_node *next = cursor->node.next;
    if (next == &links->list) return NULL;
    gevent_node_unlink(&cursor->node);
    gevent_list_append(next->next, &cursor->node);
    return (gevent_link *)next;
}

/// The first registration that a program made, past those who wait; null if there is none.
static inline gevent_link *gevent_links_first_registration(gevent_links *links) {
    for (gevent_node *node = links->list.next; node != &links->list; node = node->next) {
        gevent_link *link = (gevent_link *)node;
        if (gevent_link_is_registration(link)) return link;
    }
    return NULL;
}
