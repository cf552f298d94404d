#define _GNU_SOURCE
#include "gevent_sockets.h"

#include <fcntl.h>
#include <net/if.h>
#include <netinet/in.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/un.h>

_Static_assert(
    GEVENT_NET_PATH_CAPACITY == sizeof(((struct sockaddr_un *)0)->sun_path), "the kernel's limit of a Unix path");

// MARK: addresses

typedef union kernel_address {
    struct sockaddr any;
    struct sockaddr_in ip4;
    struct sockaddr_in6 ip6;
    struct sockaddr_un local;
    struct sockaddr_storage storage;
} kernel_address;

static socklen_t to_kernel(const gevent_net_address *address, kernel_address *kernel) {
    memset(kernel, 0, sizeof *kernel);
    switch (address->family) {
    case GEVENT_NET_IP4:
        kernel->ip4.sin_family = AF_INET;
        kernel->ip4.sin_port = htons(address->port);
        memcpy(&kernel->ip4.sin_addr, address->ip, sizeof kernel->ip4.sin_addr);
        return sizeof kernel->ip4;
    case GEVENT_NET_IP6:
        kernel->ip6.sin6_family = AF_INET6;
        kernel->ip6.sin6_port = htons(address->port);
        kernel->ip6.sin6_scope_id = address->scope;
        memcpy(&kernel->ip6.sin6_addr, address->ip, sizeof kernel->ip6.sin6_addr);
        return sizeof kernel->ip6;
    default: {
        kernel->local.sun_family = AF_UNIX;
        memcpy(kernel->local.sun_path, address->path, (size_t)address->path_length);
        // The length marks the end of an abstract name. A pathname also counts its terminating zero, which memset
        // wrote.
        _Bool is_pathname = address->path_length > 0 && address->path[0] != 0;
        return (socklen_t)(offsetof(struct sockaddr_un, sun_path) + (size_t)address->path_length + is_pathname);
    }
    }
}

static void from_kernel(const kernel_address *kernel, socklen_t length, gevent_net_address *address) {
    memset(address, 0, sizeof *address);
    switch (kernel->any.sa_family) {
    case AF_INET:
        address->family = GEVENT_NET_IP4;
        address->port = ntohs(kernel->ip4.sin_port);
        memcpy(address->ip, &kernel->ip4.sin_addr, sizeof kernel->ip4.sin_addr);
        break;
    case AF_INET6:
        address->family = GEVENT_NET_IP6;
        address->port = ntohs(kernel->ip6.sin6_port);
        address->scope = kernel->ip6.sin6_scope_id;
        memcpy(address->ip, &kernel->ip6.sin6_addr, sizeof kernel->ip6.sin6_addr);
        break;
    case AF_UNIX: {
        address->family = GEVENT_NET_UNIX;
        size_t count = length > offsetof(struct sockaddr_un, sun_path) ? length - offsetof(struct sockaddr_un, sun_path) : 0;
        if (count > GEVENT_NET_PATH_CAPACITY) count = GEVENT_NET_PATH_CAPACITY;
        // The reported length of a pathname includes its terminator; that of an abstract name is exact, zero bytes
        // included.
        if (count > 0 && kernel->local.sun_path[0] != 0) count = strnlen(kernel->local.sun_path, count);
        memcpy(address->path, kernel->local.sun_path, count);
        address->path_length = (int)count;
        break;
    }
    default:
        address->family = GEVENT_NET_OTHER;
    }
}

static char *put_number(char *at, unsigned number, unsigned base) {
    char digits[10];
    int count = 0;
    do digits[count++] = "0123456789abcdef"[number % base]; while (number /= base);
    while (count > 0) *at++ = digits[--count];
    return at;
}

static char *put_ip4(char *at, const uint8_t *bytes) {
    for (int i = 0; i < 4; i++) {
        if (i > 0) *at++ = '.';
        at = put_number(at, bytes[i], 10);
    }
    return at;
}

/// Writes an IPv6 address as inet_ntop does: the longest run of zeros is omitted, and an embedded IPv4 address has its
/// own form.
static char *put_ip6(char *at, const uint8_t *bytes) {
    unsigned words[8];
    for (int i = 0; i < 8; i++) words[i] = (unsigned)bytes[2 * i] << 8 | bytes[2 * i + 1];
    int run = -1, run_length = 1;
    for (int i = 0, start; i < 8; i++) {
        for (start = i; i < 8 && words[i] == 0;) i++;
        if (i - start > run_length) run = start, run_length = i - start;
    }
    for (int i = 0; i < 8; i++) {
        if (run >= 0 && i >= run && i < run + run_length) {
            if (i == run) *at++ = ':';
            continue;
        }
        if (i > 0) *at++ = ':';
        bool is_embedded = run == 0 && (run_length == 6 || (run_length == 5 && words[5] == 0xffff));
        if (i == 6 && is_embedded) return put_ip4(at, bytes + 12);
        at = put_number(at, words[i], 16);
    }
    if (run >= 0 && run + run_length == 8) *at++ = ':';
    return at;
}

// Called for each connection of a server, on the stack of its greenlet. snprintf and inet_ntop would be slower, and
// would use so much of the stack that each idle connection costs one more page.
void gevent_net_format_address(const gevent_net_address *address, char text[GEVENT_NET_TEXT_CAPACITY]) {
    char *at = text;
    if (address->family == GEVENT_NET_UNIX) {
        memcpy(at, "unix:", 5);
        at += 5;
        memcpy(at, address->path, (size_t)address->path_length);
        // An abstract name begins with a zero byte, which is written as @.
        if (address->path_length > 0 && *at == 0) *at = '@';
        at[address->path_length] = 0;
        return;
    }
    if (address->family == GEVENT_NET_IP4) {
        at = put_ip4(at, (const uint8_t *)address->ip);
    } else {
        *at++ = '[';
        at = put_ip6(at, (const uint8_t *)address->ip);
        if (address->scope != 0) {
            *at++ = '%';
            // The interface may have been removed since the address was made.
            at = if_indextoname(address->scope, at) ? at + strlen(at) : put_number(at, address->scope, 10);
        }
        *at++ = ']';
    }
    *at++ = ':';
    *put_number(at, address->port, 10) = 0;
}

// MARK: the files of Unix sockets

bool gevent_net_find_file(const char *path, gevent_net_file *file) {
    struct statx status;
    if (statx(AT_FDCWD, path, AT_SYMLINK_NOFOLLOW, STATX_TYPE | STATX_INO | STATX_BTIME, &status) != 0) return false;
    if (!S_ISSOCK(status.stx_mode)) return false;
    bool has_birth = status.stx_mask & STATX_BTIME;
    *file = (gevent_net_file){
        .device = (uint64_t)status.stx_dev_major << 32 | status.stx_dev_minor,
        .inode = status.stx_ino,
        .birth_seconds = has_birth ? status.stx_btime.tv_sec : 0,
        .birth_nanoseconds = has_birth ? status.stx_btime.tv_nsec : 0,
    };
    return true;
}

// MARK: making and naming sockets

static int result_of(int value) { return value < 0 ? -errno : value; }

int gevent_net_socket(int family) {
    int domain = family == GEVENT_NET_IP4 ? AF_INET : family == GEVENT_NET_IP6 ? AF_INET6 : AF_UNIX;
    return result_of(socket(domain, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0));
}

int gevent_net_pair(int descriptors[2]) {
    return result_of(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, descriptors));
}

int gevent_net_bind(int descriptor, const gevent_net_address *address) {
    kernel_address kernel;
    socklen_t length = to_kernel(address, &kernel);
    return result_of(bind(descriptor, &kernel.any, length));
}

int gevent_net_address_of(int descriptor, bool is_peer, gevent_net_address *address) {
    kernel_address kernel = {0};
    socklen_t length = sizeof kernel;
    int result = is_peer ? getpeername(descriptor, &kernel.any, &length) : getsockname(descriptor, &kernel.any, &length);
    if (result < 0) return -errno;
    from_kernel(&kernel, length, address);
    return 0;
}

int gevent_net_connect(int descriptor, const gevent_net_address *address) {
    kernel_address kernel;
    socklen_t length = to_kernel(address, &kernel);
    if (connect(descriptor, &kernel.any, length) == 0) return 0;
    return errno == EINTR ? -EINPROGRESS : -errno;
}

int gevent_net_accept(int descriptor, gevent_net_address *address) {
    for (;;) {
        kernel_address kernel;
        kernel.any.sa_family = AF_UNSPEC;
        socklen_t length = sizeof kernel;
        int accepted = accept4(descriptor, &kernel.any, &length, SOCK_NONBLOCK | SOCK_CLOEXEC);
        if (accepted >= 0) {
            from_kernel(&kernel, length, address);
            return accepted;
        }
        if (errno != EINTR) return -errno;
    }
}
