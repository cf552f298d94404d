// The C side of the switch_*.S files: what a stack that was never left looks as if it had been left like.
#include <stdint.h>
#include <string.h>

#include "gevent_switch.h"

void *gevent_first_frame(char *top, void (*function)(void *), gevent_context *context) {
    uintptr_t aligned = (uintptr_t)top & ~(uintptr_t)15;
#if defined(__x86_64__)
    // The words and registers of switch_x86_64.S, the return address, then two words that keep the entry aligned and end
    // the chain of frame records.
    enum { CONTEXT = 5, R13 = 8, R12 = 9, RETURN_ADDRESS = 12, WORDS = 15 };
    void **frame = (void **)aligned - WORDS;
    memset(frame, 0, WORDS * sizeof *frame);
    frame[R13] = context;
    frame[R12] = (void *)function;
#elif defined(__aarch64__)
    enum { X19 = 0, X20 = 1, RETURN_ADDRESS = 11, CONTEXT = 25, WORDS = 26 };
    void **frame = (void **)aligned - WORDS;
    memset(frame, 0, WORDS * sizeof *frame);
    frame[X19] = (void *)function;
    frame[X20] = context;
#else
#error "Gevent switches stacks on x86-64 and AArch64 (ELF) only. Another needs a switch_<arch>.S and a first frame here."
#endif
    frame[CONTEXT] = context;
    frame[RETURN_ADDRESS] = (void *)gevent_stack_entry;
    return frame;
}
