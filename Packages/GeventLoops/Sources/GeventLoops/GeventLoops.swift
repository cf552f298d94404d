// Nothing to call: depending on the product GeventLoops links epoll, libev and libuv into a program, and the variable
// GEVENT_LOOP, or `Configuration.shared.set(.loop, to:)`, chooses among them.
