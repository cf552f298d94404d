// Processes, threads and the environment. Functions that fail return the negated errno.
#pragma once

/// Returns the entry "NAME=value" of the environment with this index, or NULL after the last one. Returns NULL always
/// if the program has privileges that its caller does not have (AT_SECURE: set-user-ID, set-group-ID, file
/// capabilities), because the caller must not choose the files that the program opens or what it prints.
const char *gevent_environment(int index);

/// Returns the kernel's thread ID of this thread, as shown by `top -H` and debuggers.
int gevent_thread_number(void);

/// Returns a descriptor that becomes readable when the process ends.
int gevent_pidfd_open(int pid);

/// Calls `waitid()` without reaping or waiting. Returns 1 if the child has ended, otherwise 0.
int gevent_child_has_ended(int pid);

/// Calls `fork()`, which Swift does not import.
int gevent_fork(void);
