#define _GNU_SOURCE
#include "gevent_sockets.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <net/if.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

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

static uint64_t load_big_endian(const uint8_t *bytes) {
    uint64_t value = 0;
    for (int i = 0; i < 8; i++) value = value << 8 | bytes[i];
    return value;
}

static void store_big_endian(uint64_t value, uint8_t *bytes) {
    for (int i = 7; i >= 0; i--, value >>= 8) bytes[i] = (uint8_t)value;
}

static socklen_t to_kernel(const gevent_net_address *address, kernel_address *kernel) {
    memset(kernel, 0, sizeof *kernel);
    switch (address->family) {
    case GEVENT_NET_IP4:
        kernel->ip4.sin_family = AF_INET;
        kernel->ip4.sin_port = htons(address->port);
        kernel->ip4.sin_addr.s_addr = htonl((uint32_t)address->low);
        return sizeof kernel->ip4;
    case GEVENT_NET_IP6:
        kernel->ip6.sin6_family = AF_INET6;
        kernel->ip6.sin6_port = htons(address->port);
        kernel->ip6.sin6_scope_id = address->scope;
        store_big_endian(address->high, kernel->ip6.sin6_addr.s6_addr);
        store_big_endian(address->low, kernel->ip6.sin6_addr.s6_addr + 8);
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
        address->low = ntohl(kernel->ip4.sin_addr.s_addr);
        break;
    case AF_INET6:
        address->family = GEVENT_NET_IP6;
        address->port = ntohs(kernel->ip6.sin6_port);
        address->scope = kernel->ip6.sin6_scope_id;
        address->high = load_big_endian(kernel->ip6.sin6_addr.s6_addr);
        address->low = load_big_endian(kernel->ip6.sin6_addr.s6_addr + 8);
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

static _Bool parse_scope(const char *text, uint32_t *scope) {
    if (*text == 0) return 0;
    *scope = if_nametoindex(text);
    if (*scope != 0) return 1;
    char *end;
    errno = 0;
    unsigned long number = strtoul(text, &end, 10);
    if (*end != 0 || errno != 0 || text[0] < '0' || text[0] > '9' || number > UINT32_MAX) return 0;
    *scope = (uint32_t)number;
    return 1;
}

_Bool gevent_net_parse_ip(const char *text, gevent_net_address *address) {
    memset(address, 0, sizeof *address);
    struct in_addr ip4;
    if (inet_pton(AF_INET, text, &ip4) == 1) {
        address->family = GEVENT_NET_IP4;
        address->low = ntohl(ip4.s_addr);
        return 1;
    }
    char plain[INET6_ADDRSTRLEN];
    size_t length = strcspn(text, "%");
    if (length >= sizeof plain) return 0;
    memcpy(plain, text, length);
    plain[length] = 0;
    struct in6_addr ip6;
    if (inet_pton(AF_INET6, plain, &ip6) != 1) return 0;
    if (text[length] == '%' && !parse_scope(text + length + 1, &address->scope)) return 0;
    address->family = GEVENT_NET_IP6;
    address->high = load_big_endian(ip6.s6_addr);
    address->low = load_big_endian(ip6.s6_addr + 8);
    return 1;
}

void gevent_net_format_ip(const gevent_net_address *address, char text[GEVENT_NET_IP_TEXT_CAPACITY]) {
    kernel_address kernel;
    to_kernel(address, &kernel);
    if (address->family == GEVENT_NET_IP4) {
        inet_ntop(AF_INET, &kernel.ip4.sin_addr, text, GEVENT_NET_IP_TEXT_CAPACITY);
        return;
    }
    inet_ntop(AF_INET6, &kernel.ip6.sin6_addr, text, GEVENT_NET_IP_TEXT_CAPACITY);
    if (address->scope == 0) return;
    size_t used = strlen(text);
    char name[IF_NAMESIZE];
    // The interface may have been removed since the address was made.
    if (if_indextoname(address->scope, name) != NULL) {
        snprintf(text + used, GEVENT_NET_IP_TEXT_CAPACITY - used, "%%%s", name);
    } else {
        snprintf(text + used, GEVENT_NET_IP_TEXT_CAPACITY - used, "%%%u", address->scope);
    }
}

static char *put_number(char *at, unsigned number, unsigned base) {
    char digits[10];
    int count = 0;
    do digits[count++] = "0123456789abcdef"[number % base]; while (number /= base);
    while (count > 0) *at++ = digits[--count];
    return at;
}

static char *put_ip4(char *at, uint32_t bits) {
    for (int shift = 24; shift >= 0; shift -= 8) {
        at = put_number(at, bits >> shift & 255, 10);
        if (shift > 0) *at++ = '.';
    }
    return at;
}

/// Writes an IPv6 address as inet_ntop does: the longest run of zeros is omitted, and an embedded IPv4 address has its
/// own form.
static char *put_ip6(char *at, uint64_t high, uint64_t low) {
    unsigned words[8];
    for (int i = 0; i < 8; i++) words[i] = (unsigned)((i < 4 ? high : low) >> (48 - i % 4 * 16)) & 0xffff;
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
        if (i == 6 && is_embedded) return put_ip4(at, (uint32_t)low);
        at = put_number(at, words[i], 16);
    }
    if (run >= 0 && run + run_length == 8) *at++ = ':';
    return at;
}

// Called for each connection of a server, on the stack of its greenlet. snprintf and inet_ntop would be slower, and
// would use so much of the stack that each idle connection costs one more page.
void gevent_net_format_address(const gevent_net_address *address, char *text, size_t size) {
    char whole[GEVENT_NET_PATH_CAPACITY + 16], *at = whole;
    switch (address->family) {
    case GEVENT_NET_IP4:
        at = put_ip4(at, (uint32_t)address->low);
        *at++ = ':';
        at = put_number(at, address->port, 10);
        break;
    case GEVENT_NET_IP6:
        *at++ = '[';
        if (address->scope == 0) {
            at = put_ip6(at, address->high, address->low);
        } else {
            // Only the system knows the name of the interface.
            gevent_net_format_ip(address, at);
            at += strlen(at);
        }
        *at++ = ']';
        *at++ = ':';
        at = put_number(at, address->port, 10);
        break;
    default: {
        memcpy(at, "unix:", 5);
        at += 5;
        memcpy(at, address->path, (size_t)address->path_length);
        // An abstract name begins with a zero byte, which is written as @.
        if (address->path_length > 0 && *at == 0) *at = '@';
        at += address->path_length;
        break;
    }
    }
    size_t length = (size_t)(at - whole) < size - 1 ? (size_t)(at - whole) : size - 1;
    memcpy(text, whole, length);
    text[length] = 0;
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

int gevent_net_family(int descriptor) {
    gevent_net_address address;
    int result = gevent_net_local_address(descriptor, &address);
    return result < 0 ? result : address.family;
}

bool gevent_net_is_stream(int descriptor) {
    int type = 0;
    socklen_t length = sizeof type;
    return getsockopt(descriptor, SOL_SOCKET, SO_TYPE, &type, &length) == 0 && type == SOCK_STREAM;
}

int gevent_net_set_nonblocking(int descriptor) {
    int flags = fcntl(descriptor, F_GETFL);
    if (flags < 0) return -errno;
    return flags & O_NONBLOCK ? 0 : result_of(fcntl(descriptor, F_SETFL, flags | O_NONBLOCK));
}

int gevent_net_bind(int descriptor, const gevent_net_address *address) {
    kernel_address kernel;
    socklen_t length = to_kernel(address, &kernel);
    return result_of(bind(descriptor, &kernel.any, length));
}

int gevent_net_local_address(int descriptor, gevent_net_address *address) {
    kernel_address kernel = {0};
    socklen_t length = sizeof kernel;
    if (getsockname(descriptor, &kernel.any, &length) < 0) return -errno;
    from_kernel(&kernel, length, address);
    return 0;
}

int gevent_net_peer_address(int descriptor, gevent_net_address *address) {
    kernel_address kernel = {0};
    socklen_t length = sizeof kernel;
    if (getpeername(descriptor, &kernel.any, &length) < 0) return -errno;
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

// MARK: options

int gevent_net_get_option(int descriptor, int level, int name, int *values, int count) {
    socklen_t length = (socklen_t)(count * (int)sizeof *values);
    return result_of(getsockopt(descriptor, level, name, values, &length));
}

int gevent_net_set_option(int descriptor, int level, int name, const int *values, int count) {
    return result_of(setsockopt(descriptor, level, name, values, (socklen_t)(count * (int)sizeof *values)));
}
