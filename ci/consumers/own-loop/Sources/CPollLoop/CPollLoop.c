#include "CPollLoop.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/epoll.h>
#include <unistd.h>

// poll(2) reports descriptors that it cannot poll as always ready. epoll returns an error, so it is used to check them.
int poll_loop_check(int fd) {
    // Before epoll_create1, whose descriptor could get the number of one that is not open.
    if (fcntl(fd, F_GETFD) < 0) {
        return errno;
    }
    int probe = epoll_create1(EPOLL_CLOEXEC);
    if (probe < 0) {
        return errno;
    }
    // Modifying a descriptor that is not in the set fails, but the kernel checks the descriptor first.
    struct epoll_event event = {.events = 0};
    int error = epoll_ctl(probe, EPOLL_CTL_MOD, fd, &event) < 0 ? errno : 0;
    close(probe);
    return error == ENOENT ? 0 : error;
}
