// Shared by the C peers: their arguments and their output.
//
//     peer --list                 prints the names of the cases, one per line
//     peer CASE [--quick]         runs it once and prints one JSON object
//     peer serve-echo|serve-close prints {"port": n} and serves on 127.0.0.1 until its standard input ends
#pragma once

#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

typedef struct peer_case {
    const char *name;
    void (*run)(bool quick);
} peer_case;

static inline int64_t peer_now(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return now.tv_sec * 1000000000LL + now.tv_nsec;
}

/// Returns the processor time of this process, in nanoseconds.
static inline int64_t peer_processor_now(void) {
    struct timespec now;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &now);
    return now.tv_sec * 1000000000LL + now.tv_nsec;
}

/// Returns the next random moment, in microseconds from now. All `count` moments are uniformly distributed over a span
/// with a hundred per millisecond. The sequence is the same in each process, and equal to run-case's.
static inline int64_t peer_random_moment(int64_t count) {
    static uint64_t state = 1;
    state = state * 6364136223846793005u + 1442695040888963407u;
    return 100000 + (int64_t)(state >> 33) % (count * 10);
}

/// Prints the result of a run: nanoseconds for `operations` operations.
static inline void peer_report(const char *name, int64_t operations, int64_t nanoseconds) {
    printf("{\"case\": \"%s\", \"operations\": %lld, \"nanoseconds\": %.3f}\n", name, (long long)operations,
           (double)nanoseconds / (double)operations);
    fflush(stdout);
}

/// Prints the memory of each of `count` objects.
static inline void peer_report_bytes(const char *name, int64_t count, int64_t bytes) {
    printf("{\"case\": \"%s\", \"operations\": %lld, \"bytes\": %.1f}\n", name, (long long)count,
           (double)bytes / (double)count);
    fflush(stdout);
}

static inline void peer_check(bool holds, const char *what) {
    if (holds) return;
    fprintf(stderr, "%s: %s\n", what, strerror(errno));
    exit(1);
}

/// Returns the memory of this process, in bytes: resident memory and page tables.
static inline int64_t peer_memory(void) {
    FILE *file = fopen("/proc/self/status", "re");
    peer_check(file != NULL, "/proc/self/status");
    char line[256];
    long long kibibytes = 0, found;
    while (fgets(line, sizeof line, file)) {
        if (sscanf(line, "VmRSS: %lld", &found) == 1 || sscanf(line, "VmPTE: %lld", &found) == 1) kibibytes += found;
    }
    fclose(file);
    return kibibytes << 10;
}

/// Opens a listening socket on a free port of 127.0.0.1, and prints the port.
static inline int peer_listen(bool nonblocking) {
    struct rlimit limit;
    getrlimit(RLIMIT_NOFILE, &limit);
    limit.rlim_cur = limit.rlim_max;
    setrlimit(RLIMIT_NOFILE, &limit);
    int listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | (nonblocking ? SOCK_NONBLOCK : 0), 0), yes = 1;
    peer_check(listener >= 0, "socket");
    setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &yes, sizeof yes);
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t size = sizeof address;
    peer_check(bind(listener, (struct sockaddr *)&address, size) == 0, "bind");
    peer_check(listen(listener, 4096) == 0, "listen");
    getsockname(listener, (struct sockaddr *)&address, &size);
    printf("{\"port\": %d}\n", ntohs(address.sin_port));
    fflush(stdout);
    return listener;
}

static inline void peer_no_delay(int descriptor) {
    int yes = 1;
    setsockopt(descriptor, IPPROTO_TCP, TCP_NODELAY, &yes, sizeof yes);
}

/// `serve` echoes the input of a connection, or closes each connection at once; `cases` are the others.
static inline int peer_main(
    int count, char **arguments, void (*serve)(bool echoes), const peer_case *cases, size_t case_count) {
    const char *wanted = count > 1 ? arguments[1] : "";
    bool quick = count > 2 && strcmp(arguments[2], "--quick") == 0;
    if (strcmp(wanted, "--list") == 0) {
        puts("serve-echo\nserve-close");
        for (size_t i = 0; i < case_count; i++) puts(cases[i].name);
        return 0;
    }
    if (strcmp(wanted, "serve-echo") == 0 || strcmp(wanted, "serve-close") == 0) {
        serve(strcmp(wanted, "serve-echo") == 0);
        return 0;
    }
    for (size_t i = 0; i < case_count; i++) {
        if (strcmp(wanted, cases[i].name) != 0) continue;
        cases[i].run(quick);
        return 0;
    }
    fprintf(stderr, "usage: %s --list | CASE [--quick]\n", arguments[0]);
    return 64;
}
