#include "CGeventEpoll.h"
#include "CGeventLoop.h"

// Defined in Swift (Registration.swift). Declared here and not in the header, where Swift would import a second one.
extern void gevent_epoll_register(void);

// Linking this backend is all it takes to have it. The constructor runs before `main` and before anything may be
// assumed of the Swift runtime, so it only stores the pointer.
__attribute__((constructor)) static void gevent_epoll_linked(void) {
    gevent_loop_backend_linked(gevent_epoll_register);
}
