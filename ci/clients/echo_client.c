// A client of echo-server that shares no code with it: plain blocking BSD sockets.
//
// usage: echo_client ADDRESS PORT
//
// Sends messages of many sizes and compares the echoes, then half-closes and expects the end of the stream.
#include <arpa/inet.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

static void fail(const char *what) {
    perror(what);
    exit(1);
}

static void send_all(int descriptor, const char *bytes, size_t count) {
    while (count > 0) {
        ssize_t sent = send(descriptor, bytes, count, 0);
        if (sent < 0) fail("send");
        bytes += sent;
        count -= (size_t)sent;
    }
}

static void receive_all(int descriptor, char *bytes, size_t count) {
    while (count > 0) {
        ssize_t received = recv(descriptor, bytes, count, 0);
        if (received < 0) fail("recv");
        if (received == 0) {
            fprintf(stderr, "the server closed with %zu bytes missing\n", count);
            exit(1);
        }
        bytes += received;
        count -= (size_t)received;
    }
}

int main(int argc, char **argv) {
    if (argc != 3) {
        fprintf(stderr, "usage: %s ADDRESS PORT\n", argv[0]);
        return 2;
    }
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons((unsigned short)atoi(argv[2]))};
    if (inet_pton(AF_INET, argv[1], &address.sin_addr) != 1) {
        fprintf(stderr, "%s is not an IPv4 address\n", argv[1]);
        return 2;
    }
    int descriptor = socket(AF_INET, SOCK_STREAM, 0);
    if (descriptor < 0) fail("socket");
    if (connect(descriptor, (struct sockaddr *)&address, sizeof address) < 0) fail("connect");

    enum { LARGEST = 100000 };
    static char sent[LARGEST], received[LARGEST];
    size_t total = 0;
    int messages = 0;
    for (size_t size = 1; size <= LARGEST; size = size * 3 / 2 + 1, messages++) {
        for (size_t i = 0; i < size; i++) sent[i] = (char)(i * 31 + size);
        send_all(descriptor, sent, size);
        memset(received, 0, size);
        receive_all(descriptor, received, size);
        if (memcmp(sent, received, size) != 0) {
            fprintf(stderr, "the echo of %zu bytes differs\n", size);
            return 1;
        }
        total += size;
    }
    if (shutdown(descriptor, SHUT_WR) < 0) fail("shutdown");
    if (recv(descriptor, received, 1, 0) != 0) {
        fprintf(stderr, "the server does not close after its client closed\n");
        return 1;
    }
    close(descriptor);
    printf("C: %d messages, %zu bytes echoed\n", messages, total);
    return 0;
}
