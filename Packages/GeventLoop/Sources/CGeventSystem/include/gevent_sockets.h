// The socket calls, wrapped to hide the parts of C headers that differ between systems: enums behind macros, `errno`
// and unions of addresses. A function that fails returns the negated error number, and repeats a call that a signal
// interrupts.
#pragma once

#include <errno.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/socket.h>
#include <sys/types.h>
#include <sys/uio.h>

// MARK: addresses

/// The address families that Swift handles. GEVENT_NET_OTHER stands for any other that the kernel reports.
enum {
    GEVENT_NET_OTHER = 0,
    GEVENT_NET_IP4 = 1,
    GEVENT_NET_IP6 = 2,
    GEVENT_NET_UNIX = 3,
};

/// The size of `sun_path`; a pathname in it is one byte shorter, for its terminator.
enum { GEVENT_NET_PATH_CAPACITY = 108 };

/// The parts of an address. The port and the scope are in host byte order.
typedef struct gevent_net_address {
    int family;
    uint16_t port;
    uint32_t scope;   // IPv6: the index of an interface, or 0
    uint64_t ip[2];   // as in the kernel's structure, in network byte order; IPv4: only the first four bytes
    int path_length;  // Unix: an abstract name begins with a zero byte, an unnamed address has length 0
    uint8_t path[GEVENT_NET_PATH_CAPACITY];
} gevent_net_address;

/// The size that holds every text of gevent_net_format_address and its terminator.
enum { GEVENT_NET_TEXT_CAPACITY = GEVENT_NET_PATH_CAPACITY + 8 };

/// Writes "127.0.0.1:80", "[fe80::1%eth0]:80", "unix:/path" or "unix:@name".
void gevent_net_format_address(const gevent_net_address *address, char text[GEVENT_NET_TEXT_CAPACITY]);

// MARK: the files of Unix sockets

/// The identity of a file. An inode number alone is not enough, because file systems reuse the number of a removed
/// file.
typedef struct gevent_net_file {
    uint64_t device, inode;
    int64_t birth_seconds;  // the time of creation; zero if the file system does not record it
    uint32_t birth_nanoseconds;
} gevent_net_file;

/// Finds the socket file at `path`, without following a symbolic link. Returns false if there is none.
bool gevent_net_find_file(const char *path, gevent_net_file *file);

// MARK: making and naming sockets

/// Creates a non-blocking stream socket with close-on-exec.
int gevent_net_socket(int family);
int gevent_net_pair(int descriptors[2]);
int gevent_net_bind(int descriptor, const gevent_net_address *address);
/// Gets the address that the socket is bound to, or that of its peer.
int gevent_net_address_of(int descriptor, bool is_peer, gevent_net_address *address);

/// An interrupted connect continues in the kernel, so it is reported as EINPROGRESS and not repeated.
int gevent_net_connect(int descriptor, const gevent_net_address *address);
/// Returns the new descriptor, which is non-blocking with close-on-exec.
int gevent_net_accept(int descriptor, gevent_net_address *address);

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
        // If the peer has closed, this call fails with an error instead of raising SIGPIPE in the process.
        ssize_t sent = send(descriptor, bytes, count, MSG_NOSIGNAL);
        if (__builtin_expect(sent >= 0, 1)) return sent;
        if (errno != EINTR) return -errno;
    }
}

/// Sends several buffers, at most 1024, in one call.
static inline ssize_t gevent_net_send_gathered(int descriptor, struct iovec *pieces, size_t count) {
    struct msghdr message = {.msg_iov = pieces, .msg_iovlen = count};
    for (;;) {
        ssize_t sent = sendmsg(descriptor, &message, MSG_NOSIGNAL);
        if (__builtin_expect(sent >= 0, 1)) return sent;
        if (errno != EINTR) return -errno;
    }
}
