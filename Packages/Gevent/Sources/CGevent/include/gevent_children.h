// Child processes: what Swift does not import.
#pragma once

/// A descriptor that becomes readable when the process ends; the negated errno if there is none.
int gevent_pidfd_open(int pid);

/// `waitid()` without reaping or waiting: 1 if the child has ended, 0 if not yet, or the negated errno.
int gevent_child_has_ended(int pid);
