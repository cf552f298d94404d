#pragma once

// The manifest names no pkgConfig. libev-dev has no .pc file. Besides, without libev SwiftPM would print a warning for
// every user of this package, even for those that do not use this loop.

#if !__has_include(<ev.h>)
#error "GeventLibev needs libev's header <ev.h>: apt-get install libev-dev (Debian, Ubuntu), dnf install libev-devel (Fedora), or depend on the product Gevent alone, which needs nothing. In swift-gevent itself, GEVENT_WITH_LIBEV=0 leaves this loop out."
#endif
// If the header is missing, this line ends the compilation, so the error above is the one reported.
#include <ev.h>
