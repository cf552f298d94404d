// The contract between C and the assembly, one file per architecture. Private to the C sources.
#pragma once

#include "gevent_hub.h"
#include "gevent_sanitizers.h"

/// For functions that change stacks, between which ThreadSanitizer would see one thread's frames in two places.
#if GEVENT_TSAN
#define SWITCHES __attribute__((no_sanitize("thread")))
#else
#define SWITCHES
#endif

// Exported by libswiftCore for exactly this purpose; two words of state per flow of control. Weak, so that the C part
// can be tested alone.
extern void swift_task_enterThreadLocalContext(void *state) __attribute__((weak));
extern void swift_task_exitThreadLocalContext(void *state) __attribute__((weak));

/// Stops here and continues where `load` stopped.
///
/// Pushes everything that travels with a context on the running stack: the callee-saved registers of the platform's
/// calling convention, the runtime's thread-local words, errno, and which context is current. Stores the stack pointer
/// to `*save`, loads `load`, and puts back what lies there. Returns true, for the sake of callers that end in a jump
/// here, when the saved stack pointer is loaded. Reads the first five fields of the hub by offset.
///
/// Before it leaves the running stack it checks the stack pointer: if that is farther below the current context than
/// `stack_room`, it calls gevent_check_stack_pointer, which may not return.
bool gevent_swap_stacks(void **save, void *load, gevent_hub *hub);

/// Where a new stack begins. Its first frame, which gevent_first_frame builds, makes it call `function(argument)`,
/// which must never return. Marked as the outermost frame for unwinders.
void gevent_stack_entry(void);

/// The assembly's private layout: returns the stack pointer to load to start `function(context)` below `top` with
/// `context` current and all words zero.
void *gevent_first_frame(char *top, void (*function)(void *), gevent_context *context);

/// Where the context's address lies above a stack pointer that can be loaded, and where the frame pointer does, with
/// the return address behind it; in words.
#if defined(__x86_64__)
enum { GEVENT_FRAME_CONTEXT = 5, GEVENT_FRAME_POINTER = 11 };
#elif defined(__aarch64__)
enum { GEVENT_FRAME_CONTEXT = 25, GEVENT_FRAME_POINTER = 10 };
#else
#error "Gevent switches stacks on x86-64 and AArch64 (ELF) only. Another needs a switch_<arch>.S and a first frame."
#endif

/// Whose stack it is, by a stack pointer that can be loaded.
static inline gevent_context *gevent_frame_context(void *stack_pointer) {
    return ((gevent_context **)stack_pointer)[GEVENT_FRAME_CONTEXT];
}

/// Leaves the running stack for the one that stopped at `load`, and stores in `*save` where to continue. `is_over`: the
/// greenlet that is left has ended.
void gevent_leave_for(gevent_hub *hub, void **save, void *load, bool is_over);

/// Gives a greenlet that has not run a stack, and returns where to continue for it to start; null without a stack.
/// `tag`: its tag in the ready queue, which says which size the stack has.
void *gevent_prepare_start(gevent_hub *hub, void *greenlet, unsigned tag);

/// Whether what would be loaded is what gevent_first_frame has built.
bool gevent_frame_is_first(void *stack_pointer);

_Static_assert(offsetof(gevent_hub, current) == 0, "known to the assembly");
_Static_assert(offsetof(gevent_hub, access_head) == 8, "known to the assembly");
_Static_assert(offsetof(gevent_hub, task_words) == 16, "known to the assembly");
_Static_assert(offsetof(gevent_hub, errno_location) == 24, "known to the assembly");
_Static_assert(offsetof(gevent_hub, stack_room) == 32, "known to the assembly");
