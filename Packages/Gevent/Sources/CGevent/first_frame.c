// The C side of the switch_*.S files: what a stack that was never left looks as if it had been left like.
#include <stdint.h>
#include <string.h>

#include "gevent_switch.h"

void *gevent_first_frame(char *top, void (*function)(void *), void *argument) {
    uintptr_t aligned = (uintptr_t)top & ~(uintptr_t)15;
#if defined(__x86_64__)
    // Popped upwards: r15, r14, r13, r12, rbx, rbp, the return address; then two words that keep the entry aligned and
    // end the chain of frame records.
    void **frame = (void **)aligned - 9;
    memset(frame, 0, 9 * sizeof *frame);
    frame[2] = argument;
    frame[3] = (void *)function;
    frame[6] = (void *)gevent_stack_entry;
#elif defined(__aarch64__)
    // x19 to x28, x29, x30, d8 to d15.
    void **frame = (void **)aligned - 20;
    memset(frame, 0, 20 * sizeof *frame);
    frame[0] = (void *)function;
    frame[1] = argument;
    frame[11] = (void *)gevent_stack_entry;
#else
#error "Gevent switches stacks on x86-64 and AArch64 (ELF) only. Another architecture needs a switch_<arch>.S and a first frame here."
#endif
    return frame;
}
