#pragma once

// No pkgConfig in the manifest: SwiftPM would warn everybody who depends on this package and has not installed libuv,
// whether they use this loop or not.

#if !__has_include(<uv.h>)
#error "GeventLibuv needs libuv's header <uv.h>: apt-get install libuv1-dev (Debian, Ubuntu), dnf install libuv-devel (Fedora), or depend on the product Gevent alone, which needs nothing. In swift-gevent itself, GEVENT_WITH_LIBUV=0 leaves this loop out."
#endif
// Where it is missing, this ends the compilation, so that the error above is the one to be seen.
#include <uv.h>
