// The C side of the switch_*.S files: builds the initial frame so that a new stack can be resumed like a suspended one.
#include <stdint.h>
#include <string.h>

#include "gevent_switch.h"

// Offsets in a suspended stack, in words from its stack pointer. Two registers hold the first call and its argument.
#if defined(__x86_64__)
// The words and registers of switch_x86_64.S, the return address, then two words that keep the entry aligned and end
// the chain of frame records.
enum { ARGUMENT = 8, FUNCTION = 9, RETURN_ADDRESS = 12, WORDS = 15 };
#elif defined(__aarch64__)
enum { FUNCTION = 0, ARGUMENT = 1, RETURN_ADDRESS = 11, WORDS = 26 };
#endif

void *gevent_first_frame(char *top, void (*function)(void *), gevent_context *context) {
    uintptr_t aligned = (uintptr_t)top & ~(uintptr_t)15;
    void **frame = (void **)aligned - WORDS;
    memset(frame, 0, WORDS * sizeof *frame);
    frame[ARGUMENT] = context;
    frame[FUNCTION] = (void *)function;
    frame[GEVENT_FRAME_CONTEXT] = context;
    frame[RETURN_ADDRESS] = (void *)gevent_stack_entry;
    return frame;
}

bool gevent_frame_is_first(void *stack_pointer) {
    return ((void **)stack_pointer)[RETURN_ADDRESS] == (void *)gevent_stack_entry;
}
