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

/// The parts of an address, in host byte order.
typedef struct gevent_net_address {
    int family;
    uint16_t port;
    uint32_t scope;      // IPv6: the index of an interface, or 0
    uint64_t high, low;  // IPv6: both halves; IPv4: only `low`
    int path_length;     // Unix: an abstract name begins with a zero byte, an unnamed address has length 0
    uint8_t path[GEVENT_NET_PATH_CAPACITY];
} gevent_net_address;

/// Parses "127.0.0.1", "::1" or "fe80::1%eth0" into family, scope and bits. Returns false if the text is none of these
/// forms.
_Bool gevent_net_parse_ip(const char *text, gevent_net_address *address);

/// The size that holds every text of gevent_net_format_ip and its terminator.
enum { GEVENT_NET_IP_TEXT_CAPACITY = 64 };

/// Writes an IP address in the form that gevent_net_parse_ip reads.
void gevent_net_format_ip(const gevent_net_address *address, char text[GEVENT_NET_IP_TEXT_CAPACITY]);

/// Writes "127.0.0.1:80", "[::1]:80", "unix:/path" or "unix:@name", truncated to `size` bytes with the terminator.
void gevent_net_format_address(const gevent_net_address *address, char *text, size_t size);

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
/// Returns the address family of an existing socket.
int gevent_net_family(int descriptor);
bool gevent_net_is_stream(int descriptor);
int gevent_net_set_nonblocking(int descriptor);
int gevent_net_bind(int descriptor, const gevent_net_address *address);
int gevent_net_local_address(int descriptor, gevent_net_address *address);
int gevent_net_peer_address(int descriptor, gevent_net_address *address);

/// An interrupted connect continues in the kernel, so it is reported as EINPROGRESS and not repeated.
int gevent_net_connect(int descriptor, const gevent_net_address *address);
/// Returns the new descriptor, which is non-blocking with close-on-exec.
int gevent_net_accept(int descriptor, gevent_net_address *address);

// MARK: options

/// Every option we use is one or two ints long.
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
