#pragma once

// No pkgConfig in the manifest: libev-dev has no .pc file, and SwiftPM would warn everybody who depends on this package
// and has not installed it, whether they use this loop or not.

#if !__has_include(<ev.h>)
#error "GeventLibev needs libev's header <ev.h>: apt-get install libev-dev (Debian, Ubuntu), dnf install libev-devel (Fedora), or depend on the product Gevent alone, which needs nothing. In swift-gevent itself, GEVENT_WITH_LIBEV=0 leaves this loop out."
#endif
// Where it is missing, this ends the compilation, so that the error above is the one to be seen.
#include <ev.h>
