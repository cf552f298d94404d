#pragma once

/// 0 if the kernel can poll the descriptor, or the error number that tells why not: EBADF or EPERM.
int poll_loop_check(int fd);
