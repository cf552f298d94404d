#pragma once

// The manifest names no pkgConfig. Without libuv SwiftPM would print a warning for every user of this package, even for
// those that do not use this loop.

#if !__has_include(<uv.h>)
#error "GeventLibuv needs libuv's header <uv.h>: apt-get install libuv1-dev (Debian, Ubuntu), dnf install libuv-devel (Fedora), or depend on the product Gevent alone, which needs nothing. In swift-gevent itself, GEVENT_WITH_LIBUV=0 leaves this loop out."
#endif
// If the header is missing, this line ends the compilation, so the error above is the one reported.
#include <uv.h>
