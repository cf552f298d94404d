#pragma once

// The manifest names no pkgConfig: SwiftPM would warn every user of this package who has not installed libuv, even if
// they do not use this loop.

#if !__has_include(<uv.h>)
#error "GeventLibuv needs libuv's header <uv.h>: apt-get install libuv1-dev (Debian, Ubuntu), dnf install libuv-devel (Fedora), or depend on the product Gevent alone, which needs nothing. In swift-gevent itself, GEVENT_WITH_LIBUV=0 leaves this loop out."
#endif
// If the header is missing, this line ends the compilation, so the error above is the one reported.
#include <uv.h>
