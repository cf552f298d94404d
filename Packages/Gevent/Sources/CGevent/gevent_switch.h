// The contract between hub.c and the assembly, one file per architecture. Private to the C sources.
#pragma once

/// Saves the callee-saved registers of the platform's calling convention on the running stack, stores the stack
/// pointer to `*save`, continues on `load`. Returns when somebody loads what was saved.
void gevent_swap_stacks(void **save, void *load);

/// Where a new stack begins. Its first frame, which gevent_first_frame builds, makes it call `function(argument)`,
/// which must never return. Marked as the outermost frame for unwinders.
void gevent_stack_entry(void);

/// The assembly's private layout: returns the stack pointer to load to start `function(argument)` below `top`.
void *gevent_first_frame(char *top, void (*function)(void *), void *argument);
