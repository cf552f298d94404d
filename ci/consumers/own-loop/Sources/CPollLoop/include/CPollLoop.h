#pragma once

/// Returns 0 if the kernel can poll the descriptor, or an error number: EBADF or EPERM.
int poll_loop_check(int fd);
