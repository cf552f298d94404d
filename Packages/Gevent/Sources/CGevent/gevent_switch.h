// The interface between C and the assembly, which has one file per architecture. Private to the C sources.
#pragma once

#include "gevent_hub.h"
#include "gevent_sanitizers.h"

/// Marks functions that change stacks. ThreadSanitizer would see the frames of one thread in two places there.
#if GEVENT_TSAN
#define SWITCHES __attribute__((no_sanitize("thread")))
#else
#define SWITCHES
#endif

// Exported by libswiftCore for exactly this purpose; two words of state per flow of control. Weak, so that the C part
// can be tested alone.
extern void swift_task_enterThreadLocalContext(void *state) __attribute__((weak));
extern void swift_task_exitThreadLocalContext(void *state) __attribute__((weak));

/// Suspends the running stack and resumes the one that was suspended at `load`.
///
/// Pushes the state that is switched with a context onto the running stack: the callee-saved registers of the
/// platform's calling convention, the runtime's thread-local words, errno, and the address of the current context.
/// Stores the stack pointer to `*save`, loads `load`, and restores the state that is saved there. Returns true when the
/// saved stack pointer is loaded, for callers that end in a jump here. Reads the first five fields of the hub by
/// offset.
///
/// Before it leaves the running stack it checks the stack pointer: if that is more than `stack_room` below the current
/// context, it calls gevent_check_stack_pointer, which may not return.
bool gevent_swap_stacks(void **save, void *load, gevent_hub *hub);

/// The entry point of a new stack. The first frame, which gevent_first_frame builds, makes it call
/// `function(argument)`, which must never return. Marked as the outermost frame for unwinders.
void gevent_stack_entry(void);

/// Builds the initial frame so that a new stack can be resumed like a suspended one: below `top`, with `context`
/// current and all words zero. Returns the stack pointer to load, which starts `function(context)`. Its layout is
/// private to the assembly.
void *gevent_first_frame(char *top, void (*function)(void *), gevent_context *context);

/// Offsets above a saved stack pointer, in words: the context's address, and the frame pointer, which the return
/// address follows.
#if defined(__x86_64__)
enum { GEVENT_FRAME_CONTEXT = 5, GEVENT_FRAME_POINTER = 11 };
#elif defined(__aarch64__)
enum { GEVENT_FRAME_CONTEXT = 25, GEVENT_FRAME_POINTER = 10 };
#else
#error "Gevent switches stacks on x86-64 and AArch64 (ELF) only. Another needs a switch_<arch>.S and a first frame."
#endif

/// Returns the context whose stack was suspended at a saved stack pointer.
static inline gevent_context *gevent_frame_context(void *stack_pointer) {
    return ((gevent_context **)stack_pointer)[GEVENT_FRAME_CONTEXT];
}

/// Suspends the running stack and resumes the one suspended at `load`; stores the running stack's pointer in `*save`.
/// `has_ended`: the running greenlet has ended.
void gevent_switch_to(gevent_hub *hub, void **save, void *load, bool has_ended);

/// Assigns a stack to a greenlet that has not started. Returns the stack pointer that starts it; null without a stack.
/// `tag`: its kind of ready queue entry, which determines the size of the stack.
void *gevent_prepare_start(gevent_hub *hub, void *greenlet, unsigned tag);

/// Returns whether `stack_pointer` is that of a frame that gevent_first_frame has built.
bool gevent_frame_is_first(void *stack_pointer);

_Static_assert(offsetof(gevent_hub, current) == 0, "known to the assembly");
_Static_assert(offsetof(gevent_hub, access_head) == 8, "known to the assembly");
_Static_assert(offsetof(gevent_hub, task_words) == 16, "known to the assembly");
_Static_assert(offsetof(gevent_hub, errno_location) == 24, "known to the assembly");
_Static_assert(offsetof(gevent_hub, stack_room) == 32, "known to the assembly");
