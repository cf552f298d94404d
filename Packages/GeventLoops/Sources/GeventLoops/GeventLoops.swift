// This module has no declarations. Depending on the product GeventLoops links epoll, libev and libuv into a program,
// and the variable GEVENT_LOOP, or `Configuration.shared.set(.loop, to:)`, selects one of them.
