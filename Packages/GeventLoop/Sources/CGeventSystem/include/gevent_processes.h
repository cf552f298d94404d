// Processes, threads and the environment. Functions that fail return the negated errno.
#pragma once

/// An entry "NAME=value" of the environment by its index; null after the last one, and always if the program runs with
/// privileges that its caller does not have (AT_SECURE: set-user-ID, set-group-ID, file capabilities). There the caller
/// must not choose what the program opens or prints.
const char *gevent_environment(int index);

/// The kernel's number of this thread, as `top -H` and debuggers show it.
int gevent_thread_number(void);

/// A descriptor that becomes readable when the process ends.
int gevent_pidfd_open(int pid);

/// `waitid()` without reaping or waiting: 1 if the child has ended, 0 if not yet.
int gevent_child_has_ended(int pid);

/// `fork()`, for checks of what a loop does in a child.
///
/// The child may only do what is needed for that and must end by `gevent_exit`; it is killed if it has not done so
/// after this many seconds.
int gevent_fork_for_seconds(unsigned seconds);

/// `_exit()`: without flushing or running what the parent will flush and run itself.
_Noreturn void gevent_exit(int code);

/// Waits for a child: its exit code, or 256 plus the number of the signal that killed it.
int gevent_wait_for_exit(int child);
