#pragma once

// What Swift does not import: fork, on purpose; the macros that take a wait status apart; calls that need _GNU_SOURCE.

#ifdef __cplusplus
extern "C" {
#endif

/// `pipe2()`: a non-blocking pipe that an exec closes; read end, write end. 0 or the negated errno.
int gevent_testing_pipe(int ends[2]);

/// `dup3()`: puts the file of one descriptor behind another number. 0 or the negated errno.
int gevent_testing_replace(int fd, int with);

/// `open()` with O_PATH: a descriptor that stands for a file and can do nothing with it. It or -1.
int gevent_testing_open_path(const char *path);

/// 0 if the kernel can poll the descriptor; EBADF if it is not open, EPERM if it is of a kind that cannot be polled.
int gevent_testing_check_pollable(int fd);

/// A new epoll descriptor that watches another descriptor for reading; -ELOOP if that is nested as deep as the kernel
/// allows, or another negated errno.
int gevent_testing_epoll_watching(int fd);

/// `fork()`; the negated errno if it fails.
///
/// Meant for checks of what a loop does in a child. The child may only do what is needed for that and must end by
/// `gevent_testing_exit`; it is killed if it has not done so after this many seconds.
int gevent_testing_fork(unsigned child_seconds);

/// `_exit()`: without flushing or running what the parent will flush and run itself.
_Noreturn void gevent_testing_exit(int code);

/// Waits for a child: its exit code, 256 plus the number of the signal that killed it, or a negated errno.
int gevent_testing_wait(int child);

#ifdef __cplusplus
}
#endif
