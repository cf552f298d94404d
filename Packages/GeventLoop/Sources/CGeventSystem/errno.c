#define _GNU_SOURCE
#include "gevent_errno.h"

#include <string.h>

const char *gevent_errno_name(int code) {
#ifdef __GLIBC__
    return strerrorname_np(code);
#else
    (void)code;
    return NULL;
#endif
}

const char *gevent_errno_text(int code) {
#ifdef __GLIBC__
    return strerrordesc_np(code);
#else
    return strerror(code);  // static text in musl
#endif
}
