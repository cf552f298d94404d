#define _GNU_SOURCE
#include "CLoad.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#include "CMeasure.h"
#include "histogram.h"

typedef struct options {
    int port, connections, bytes, server, processor;
    int64_t requests;
    double seconds;
} options;

typedef struct connection {
    int descriptor;
    int received;   // bytes of the answer so far
    int64_t began;  // when the request was sent, or the connection started
} connection;

static _Noreturn void fail(const char *format, ...) {
    va_list arguments;
    va_start(arguments, format);
    fputs("load: ", stderr);
    vfprintf(stderr, format, arguments);
    fputc('\n', stderr);
    va_end(arguments);
    exit(1);
}

static void *allocate(size_t count, size_t size) {
    void *block = calloc(count, size);
    if (!block) fail("out of memory");
    return block;
}

static int64_t now(void) { return measure_wall(); }

// --- Connections -----------------------------------------------------------------------------------------------------

static struct sockaddr_in address_of(const options *options) {
    return (struct sockaddr_in){
        .sin_family = AF_INET,
        .sin_port = htons((uint16_t)options->port),
        .sin_addr = {htonl(INADDR_LOOPBACK)},
    };
}

static int new_socket(bool blocking) {
    int descriptor = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | (blocking ? 0 : SOCK_NONBLOCK), 0);
    if (descriptor < 0) fail("no socket: %s", strerror(errno));
    int one = 1;
    setsockopt(descriptor, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    return descriptor;
}

static void watch(int poller, connection *connection) {
    struct epoll_event event = {.events = EPOLLIN, .data.ptr = connection};
    if (epoll_ctl(poller, EPOLL_CTL_ADD, connection->descriptor, &event) != 0) {
        fail("epoll_ctl: %s", strerror(errno));
    }
}

static connection *connect_all(const options *options, int poller) {
    connection *all = allocate((size_t)options->connections, sizeof *all);
    struct sockaddr_in address = address_of(options);
    for (int i = 0; i < options->connections; i++) {
        all[i].descriptor = new_socket(true);
        while (connect(all[i].descriptor, (struct sockaddr *)&address, sizeof address) != 0) {
            if (errno != EINTR) fail("connection %d: %s", i + 1, strerror(errno));
        }
        fcntl(all[i].descriptor, F_SETFL, O_NONBLOCK);
        watch(poller, &all[i]);
    }
    return all;
}

// --- Requests and answers --------------------------------------------------------------------------------------------

static void ask(connection *connection, const char *request, int bytes) {
    connection->received = 0;
    connection->began = now();
    // Never partial: the previous answer has been read, so the socket's buffer is empty.
    ssize_t sent = send(connection->descriptor, request, (size_t)bytes, MSG_NOSIGNAL);
    if (sent != bytes) fail("could not send %d bytes: %s", bytes, sent < 0 ? strerror(errno) : "the buffer is full");
}

/// Reads available bytes. Returns whether the answer is complete.
static bool hear(connection *connection, char *room, const char *request, int bytes) {
    while (connection->received < bytes) {
        ssize_t count = recv(connection->descriptor, room, (size_t)(bytes - connection->received), 0);
        if (count == 0) fail("the server closed a connection");
        if (count < 0) {
            if (errno == EAGAIN) return false;
            if (errno == EINTR) continue;
            fail("recv: %s", strerror(errno));
        }
        if (memcmp(room, request + connection->received, (size_t)count) != 0) fail("the server sent something else");
        connection->received += (int)count;
    }
    return true;
}

static int wait_for(int poller, struct epoll_event *events, int room) {
    int count;
    // Ten seconds without any event mean that the server hangs.
    while ((count = epoll_wait(poller, events, room, 10000)) < 0 && errno == EINTR) {}
    if (count < 0) fail("epoll_wait: %s", strerror(errno));
    if (count == 0) fail("no answer in 10 s");
    return count;
}

enum { EVENTS = 512 };

typedef struct echo {
    const options *options;
    int poller;
    connection *all;
    char *request, *room;
} echo;

static echo echo_begin(const options *options, int bytes) {
    echo echo = {.options = options, .poller = epoll_create1(EPOLL_CLOEXEC)};
    if (echo.poller < 0) fail("epoll_create1: %s", strerror(errno));
    echo.request = allocate((size_t)bytes, 1);
    echo.room = allocate((size_t)bytes, 1);
    for (int i = 0; i < bytes; i++) echo.request[i] = (char)('a' + i % 26);
    echo.all = connect_all(options, echo.poller);
    // Uses each connection once, so that allocations at first use precede the measurement.
    for (int i = 0; i < options->connections; i++) ask(&echo.all[i], echo.request, bytes);
    struct epoll_event events[EVENTS];
    for (int left = options->connections; left > 0;) {
        int count = wait_for(echo.poller, events, EVENTS);
        for (int i = 0; i < count; i++) left -= hear(events[i].data.ptr, echo.room, echo.request, bytes);
    }
    return echo;
}

// --- Results ---------------------------------------------------------------------------------------------------------

static void say_started(void) {
    puts("started");
    fflush(stdout);
}

static void print_result(
    const char *mode, const options *options, int64_t requests, int64_t nanoseconds, int64_t processor,
    const histogram *latencies) {
    double seconds = (double)nanoseconds / 1e9;
    printf("{\"mode\": \"%s\", \"connections\": %d, ", mode, options->connections);
    if (strcmp(mode, "echo") == 0) printf("\"bytes\": %d, ", options->bytes);
    printf(
        "\"requests\": %lld, \"seconds\": %.6f, \"requestsPerSecond\": %.1f, ", (long long)requests, seconds,
        seconds > 0 ? (double)requests / seconds : 0.0);
    printf(
        "\"p50Microseconds\": %.2f, \"p90Microseconds\": %.2f, \"p99Microseconds\": %.2f, \"maxMicroseconds\": %.2f",
        histogram_at(latencies, 0.50) / 1e3, histogram_at(latencies, 0.90) / 1e3, histogram_at(latencies, 0.99) / 1e3,
        (double)latencies->highest / 1e3);
    if (processor >= 0) {
        printf(
            ", \"serverProcessorSeconds\": %.6f, \"serverProcessorNanosecondsPerRequest\": %.1f",
            (double)processor / 1e9, requests > 0 ? (double)processor / (double)requests : 0.0);
    }
    puts("}");
    fflush(stdout);
}

static int64_t processor_time_of_server(const options *options) {
    if (options->server <= 0) return -1;
    int64_t time = measure_processor_time_of(options->server);
    if (time < 0) fail("cannot read the processor time of process %d", options->server);
    return time;
}

// --- The modes -------------------------------------------------------------------------------------------------------

static void run_echo(const options *options) {
    int bytes = options->bytes;
    echo echo = echo_begin(options, bytes);
    histogram *latencies = allocate(1, sizeof *latencies);
    say_started();
    int64_t processor = processor_time_of_server(options), began = now();
    int64_t until = options->seconds > 0 ? began + (int64_t)(options->seconds * 1e9) : INT64_MAX;
    int64_t limit = options->requests > 0 ? options->requests : INT64_MAX;
    int64_t asked = 0, heard = 0, time = began;
    for (int i = 0; i < options->connections && asked < limit; i++, asked++) ask(&echo.all[i], echo.request, bytes);
    struct epoll_event events[EVENTS];
    while (heard < asked) {
        int count = wait_for(echo.poller, events, EVENTS);
        for (int i = 0; i < count; i++) {
            connection *connection = events[i].data.ptr;
            if (!hear(connection, echo.room, echo.request, bytes)) continue;
            heard++;
            time = now();
            histogram_add(latencies, (uint64_t)(time - connection->began));
            if (asked < limit && time < until) {
                ask(connection, echo.request, bytes);
                asked++;
            }
        }
    }
    if (processor >= 0) processor = processor_time_of_server(options) - processor;
    print_result("echo", options, heard, time - began, processor, latencies);
}

static void begin_connection(int poller, connection *connection, const struct sockaddr_in *address) {
    connection->descriptor = new_socket(false);
    // Closed by a reset, so that no port stays in TIME_WAIT and the next connection finds one.
    struct linger linger = {.l_onoff = 1, .l_linger = 0};
    setsockopt(connection->descriptor, SOL_SOCKET, SO_LINGER, &linger, sizeof linger);
    connection->began = now();
    if (connect(connection->descriptor, (const struct sockaddr *)address, sizeof *address) != 0 &&
        errno != EINPROGRESS) {
        fail("connect: %s", strerror(errno));
    }
    watch(poller, connection);
}

/// Makes `requests` connections and waits until the server has closed each.
static void storm(const options *options, int poller, connection *all, int64_t requests, histogram *latencies) {
    struct sockaddr_in address = address_of(options);
    int64_t begun = 0, over = 0;
    for (int i = 0; i < options->connections && begun < requests; i++, begun++) {
        begin_connection(poller, &all[i], &address);
    }
    struct epoll_event events[EVENTS];
    while (over < requests) {
        int count = wait_for(poller, events, EVENTS);
        for (int i = 0; i < count; i++) {
            connection *connection = events[i].data.ptr;
            char byte;
            ssize_t got = recv(connection->descriptor, &byte, 1, 0);
            if (got < 0 && (errno == EAGAIN || errno == EINTR)) continue;
            if (got != 0) fail("not closed by the server: %s", got < 0 ? strerror(errno) : "it sent something");
            close(connection->descriptor);
            over++;
            if (latencies) histogram_add(latencies, (uint64_t)(now() - connection->began));
            if (begun < requests) {
                begin_connection(poller, connection, &address);
                begun++;
            }
        }
    }
}

static void run_accept(const options *options) {
    int poller = epoll_create1(EPOLL_CLOEXEC);
    if (poller < 0) fail("epoll_create1: %s", strerror(errno));
    connection *all = allocate((size_t)options->connections, sizeof *all);
    histogram *latencies = allocate(1, sizeof *latencies);
    storm(options, poller, all, options->connections, NULL);
    say_started();
    int64_t processor = processor_time_of_server(options), began = now();
    storm(options, poller, all, options->requests, latencies);
    int64_t nanoseconds = now() - began;
    if (processor >= 0) processor = processor_time_of_server(options) - processor;
    print_result("accept", options, options->requests, nanoseconds, processor, latencies);
}

static void run_idle(const options *options) {
    bool accounts = options->server > 0;
    int64_t before = accounts ? measure_memory_bytes(options->server) : 0;
    echo_begin(options, 1);
    int64_t after = accounts ? measure_memory_bytes(options->server) : 0;
    if (before < 0 || after < 0) fail("cannot read the memory of process %d", options->server);
    say_started();
    char room[256];
    for (;;) {
        ssize_t count = read(STDIN_FILENO, room, sizeof room);
        if (count == 0 || (count < 0 && errno != EINTR)) break;
    }
    printf("{\"mode\": \"idle\", \"connections\": %d", options->connections);
    if (accounts) {
        printf(
            ", \"serverResidentBytesBefore\": %lld, \"serverResidentBytes\": %lld, \"bytesEach\": %.1f",
            (long long)before, (long long)after, (double)(after - before) / options->connections);
    }
    puts("}");
    fflush(stdout);
}

// --- The program -----------------------------------------------------------------------------------------------------

static double number(const char *option, const char *text, double least, double most) {
    char *end;
    double value = text ? strtod(text, &end) : 0;
    if (!text || !*text || *end || !(value >= least && value <= most)) {
        fail("%s takes a number from %.0f to %.0f", option, least, most);
    }
    return value;
}

static void raise_descriptor_limit(void) {
    struct rlimit limit;
    if (getrlimit(RLIMIT_NOFILE, &limit) != 0) return;
    limit.rlim_cur = limit.rlim_max;
    setrlimit(RLIMIT_NOFILE, &limit);
}

int load_main(int count, char **arguments) {
    options options = {.connections = 100, .bytes = 64, .processor = -1};
    if (count < 2) fail("the first argument is echo, accept or idle; what follows is at the top of programs/load/main.c");
    for (int i = 2; i < count; i += 2) {
        const char *option = arguments[i], *value = i + 1 < count ? arguments[i + 1] : NULL;
        if (strcmp(option, "--port") == 0) options.port = (int)number(option, value, 1, 65535);
        else if (strcmp(option, "--connections") == 0) options.connections = (int)number(option, value, 1, 1e6);
        else if (strcmp(option, "--bytes") == 0) options.bytes = (int)number(option, value, 1, 65536);
        else if (strcmp(option, "--requests") == 0) options.requests = (int64_t)number(option, value, 1, 1e12);
        else if (strcmp(option, "--seconds") == 0) options.seconds = number(option, value, 0, 3600);
        else if (strcmp(option, "--server-pid") == 0) options.server = (int)number(option, value, 1, 1e9);
        else if (strcmp(option, "--cpu") == 0) options.processor = (int)number(option, value, 0, 4095);
        else fail("unknown option %s", option);
    }
    if (!options.port) fail("--port is missing");
    if (options.processor >= 0 && !measure_bind(options.processor)) fail("cannot run on CPU %d", options.processor);
    raise_descriptor_limit();
    signal(SIGPIPE, SIG_IGN);
    const char *mode = arguments[1];
    if (strcmp(mode, "echo") == 0) {
        if (options.requests <= 0 && options.seconds <= 0) fail("echo needs --requests or --seconds");
        run_echo(&options);
    } else if (strcmp(mode, "accept") == 0) {
        if (options.requests <= 0) fail("accept needs --requests");
        run_accept(&options);
    } else if (strcmp(mode, "idle") == 0) {
        run_idle(&options);
    } else {
        fail("the mode is echo, accept or idle, not %s", mode);
    }
    return 0;
}

__attribute__((constructor)) static void become_load(void) {
    const char *found = getenv(LOAD_VARIABLE);
    if (!found) return;
    enum { ARGUMENTS = 64 };
    char *text = strdup(found), *arguments[ARGUMENTS + 1] = {(char *)"load"};
    int count = 1;
    for (char *rest = text, *word; count < ARGUMENTS && (word = strsep(&rest, " "));) arguments[count++] = word;
    exit(load_main(count, arguments));
}
