#include "CPollLoop.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/epoll.h>
#include <unistd.h>

// poll(2) calls what it cannot poll always ready. epoll says so, and that is all it is used for here.
int poll_loop_check(int fd) {
    // Before the new descriptor takes the number of one that is not open.
    if (fcntl(fd, F_GETFD) < 0) {
        return errno;
    }
    int probe = epoll_create1(EPOLL_CLOEXEC);
    if (probe < 0) {
        return errno;
    }
    // Changing what is not in the set changes nothing, but the kernel looks at the descriptor first.
    struct epoll_event event = {.events = 0};
    int error = epoll_ctl(probe, EPOLL_CTL_MOD, fd, &event) < 0 ? errno : 0;
    close(probe);
    return error == ENOENT ? 0 : error;
}
