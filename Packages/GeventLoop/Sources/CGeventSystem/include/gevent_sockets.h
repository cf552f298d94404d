// The socket calls, so that Swift sees none of what C headers do differently from one another: enums behind macros,
// `errno`, unions of addresses. What fails returns the negated error number; what a signal interrupts is repeated.
#pragma once

#include <errno.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/socket.h>
#include <sys/types.h>
#include <sys/uio.h>

// MARK: addresses

/// The families Swift knows. Anything else the kernel might report is GEVENT_NET_OTHER.
enum {
    GEVENT_NET_OTHER = 0,
    GEVENT_NET_IP4 = 1,
    GEVENT_NET_IP6 = 2,
    GEVENT_NET_UNIX = 3,
};

/// The longest `sun_path`; a pathname in it is one shorter, for its terminator.
enum { GEVENT_NET_PATH_CAPACITY = 108 };

/// An address, taken apart, in host byte order.
typedef struct gevent_net_address {
    int family;
    uint16_t port;
    uint32_t scope;      // of IPv6: the index of an interface, or 0
    uint64_t high, low;  // IPv6 whole, IPv4 in `low`
    int path_length;     // of a Unix address; an abstract name begins with a zero byte, an unnamed one is empty
    uint8_t path[GEVENT_NET_PATH_CAPACITY];
} gevent_net_address;

/// Reads "127.0.0.1", "::1" or "fe80::1%eth0" into family, scope and bits; false if it is none of them.
_Bool gevent_net_parse_ip(const char *text, gevent_net_address *address);

/// Room for every text of gevent_net_format_ip, with its terminator.
enum { GEVENT_NET_IP_TEXT_CAPACITY = 64 };

/// Writes what gevent_net_parse_ip reads.
void gevent_net_format_ip(const gevent_net_address *address, char text[GEVENT_NET_IP_TEXT_CAPACITY]);

/// Writes "127.0.0.1:80", "[::1]:80", "unix:/path" or "unix:@name", cut to `size` bytes with its terminator.
void gevent_net_format_address(const gevent_net_address *address, char *text, size_t size);

// MARK: the files of Unix sockets

/// Which file a path led to. An inode's number alone does not tell: file systems give the number of a removed file to
/// the next one.
typedef struct gevent_net_file {
    uint64_t device, inode;
    int64_t birth_seconds;  // when it was made; zero where the file system does not know
    uint32_t birth_nanoseconds;
} gevent_net_file;

/// The socket file at `path`, which is not followed if it is a link; false if there is none.
bool gevent_net_find_file(const char *path, gevent_net_file *file);

// MARK: making and naming sockets

/// A non-blocking stream socket that is closed on exec.
int gevent_net_socket(int family);
int gevent_net_pair(int descriptors[2]);
/// The family of an existing socket's addresses.
int gevent_net_family(int descriptor);
bool gevent_net_is_stream(int descriptor);
int gevent_net_set_nonblocking(int descriptor);
int gevent_net_bind(int descriptor, const gevent_net_address *address);
int gevent_net_local_address(int descriptor, gevent_net_address *address);
int gevent_net_peer_address(int descriptor, gevent_net_address *address);

/// An interrupted connect goes on in the kernel, so it is reported as EINPROGRESS and not repeated.
int gevent_net_connect(int descriptor, const gevent_net_address *address);
/// The new descriptor: non-blocking, closed on exec.
int gevent_net_accept(int descriptor, gevent_net_address *address);

// MARK: options

/// All options that are used are one or two ints long.
int gevent_net_get_option(int descriptor, int level, int name, int *values, int count);
int gevent_net_set_option(int descriptor, int level, int name, const int *values, int count);

// MARK: the hot path

static inline ssize_t gevent_net_receive(int descriptor, void *buffer, size_t capacity) {
    for (;;) {
        ssize_t count = recv(descriptor, buffer, capacity, 0);
        if (__builtin_expect(count >= 0, 1)) return count;
        if (errno != EINTR) return -errno;
    }
}

static inline ssize_t gevent_net_send(int descriptor, const void *bytes, size_t count) {
    for (;;) {
        // A peer that is gone is an error of this call and not a SIGPIPE of the process.
        ssize_t sent = send(descriptor, bytes, count, MSG_NOSIGNAL);
        if (__builtin_expect(sent >= 0, 1)) return sent;
        if (errno != EINTR) return -errno;
    }
}

/// Sends the bytes of several pieces of memory as if they were one; not more than 1024 pieces.
static inline ssize_t gevent_net_send_gathered(int descriptor, struct iovec *pieces, size_t count) {
    struct msghdr message = {.msg_iov = pieces, .msg_iovlen = count};
    for (;;) {
        ssize_t sent = sendmsg(descriptor, &message, MSG_NOSIGNAL);
        if (__builtin_expect(sent >= 0, 1)) return sent;
        if (errno != EINTR) return -errno;
    }
}
