// Plain C on io_uring: one receive or send in flight per connection, submitted in batches.
#define _GNU_SOURCE
#include <liburing.h>
#include <pthread.h>
#include <sys/eventfd.h>

#include "../c-common/peer.h"

enum { ENTRIES = 4096, BUFFER = 4096 };

typedef struct connection {
    int descriptor;
    bool sends;
    size_t size;
    char buffer[BUFFER];
} connection;

static struct io_uring ring;

static struct io_uring_sqe *entry(void) {
    struct io_uring_sqe *sqe;
    while (!(sqe = io_uring_get_sqe(&ring))) io_uring_submit(&ring);
    return sqe;
}

static void receive(connection *self) {
    struct io_uring_sqe *sqe = entry();
    self->sends = false;
    io_uring_prep_recv(sqe, self->descriptor, self->buffer, BUFFER, 0);
    io_uring_sqe_set_data(sqe, self);
}

static void reply(connection *self) {
    struct io_uring_sqe *sqe = entry();
    self->sends = true;
    io_uring_prep_send(sqe, self->descriptor, self->buffer, self->size, MSG_WAITALL | MSG_NOSIGNAL);
    io_uring_sqe_set_data(sqe, self);
}

static void accept_more(int listener, void *tag) {
    struct io_uring_sqe *sqe = entry();
    io_uring_prep_multishot_accept(sqe, listener, NULL, NULL, SOCK_CLOEXEC);
    io_uring_sqe_set_data(sqe, tag);
}

static void serve(bool echoes) {
    static char accepting, input;
    peer_check(io_uring_queue_init(ENTRIES, &ring, IORING_SETUP_SINGLE_ISSUER | IORING_SETUP_COOP_TASKRUN) == 0 ||
                   io_uring_queue_init(ENTRIES, &ring, 0) == 0,
               "io_uring_queue_init");
    int listener = peer_listen(false);
    accept_more(listener, &accepting);
    char byte;
    struct io_uring_sqe *sqe = entry();
    io_uring_prep_read(sqe, STDIN_FILENO, &byte, 1, 0);
    io_uring_sqe_set_data(sqe, &input);
    for (;;) {
        io_uring_submit_and_wait(&ring, 1);
        struct io_uring_cqe *cqe;
        unsigned head, seen = 0;
        io_uring_for_each_cqe(&ring, head, cqe) {
            seen++;
            void *data = io_uring_cqe_get_data(cqe);
            if (data == &input) return;
            if (data == &accepting) {
                if (!(cqe->flags & IORING_CQE_F_MORE)) accept_more(listener, &accepting);
                if (cqe->res < 0) continue;
                if (!echoes) {
                    struct io_uring_sqe *closing = entry();
                    io_uring_prep_close(closing, cqe->res);
                    io_uring_sqe_set_data(closing, NULL);
                    continue;
                }
                peer_no_delay(cqe->res);
                connection *made = malloc(sizeof *made);
                made->descriptor = cqe->res;
                receive(made);
                continue;
            }
            if (!data) continue;
            connection *self = data;
            if (cqe->res <= 0) {
                close(self->descriptor);
                free(self);
            } else if (self->sends) {
                receive(self);
            } else {
                self->size = (size_t)cqe->res;
                reply(self);
            }
        }
        io_uring_cq_advance(&ring, seen);
    }
}

int main(int count, char **arguments) {
    return peer_main(count, arguments, serve, NULL, 0);
}
