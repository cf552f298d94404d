// AAPCS64: x19 to x28, the frame record (x29, x30) and the low halves of v8 to v15 are callee-saved. So is FPCR, but
// nothing in Swift sets it. x18 is never touched. Return addresses are not signed here, so pointer authentication
// stays off for this frame; the hints make both entries valid branch targets where BTI is enforced.
#if defined(__aarch64__) && defined(__ELF__)

    .text

    // bool gevent_swap_stacks(void **save /* x0 */, void *load /* x1 */, gevent_hub *hub /* x2 */)
    //
    // The layout of a suspended stack, from its stack pointer up: x19 to x30 (0), d8 to d15 (96), access list head and
    // first task word (160), second task word and task-local fallback (176), errno (192), the context (200).
    .hidden gevent_check_stack_pointer
    .globl gevent_swap_stacks
    .hidden gevent_swap_stacks
    .type gevent_swap_stacks, %function
    .p2align 4
gevent_swap_stacks:
    .cfi_startproc
    hint #34  // bti c
    sub sp, sp, #208
    .cfi_adjust_cfa_offset 208
    stp x19, x20, [sp, #0]
    .cfi_rel_offset x19, 0
    .cfi_rel_offset x20, 8
    stp x21, x22, [sp, #16]
    .cfi_rel_offset x21, 16
    .cfi_rel_offset x22, 24
    stp x23, x24, [sp, #32]
    .cfi_rel_offset x23, 32
    .cfi_rel_offset x24, 40
    stp x25, x26, [sp, #48]
    .cfi_rel_offset x25, 48
    .cfi_rel_offset x26, 56
    stp x27, x28, [sp, #64]
    .cfi_rel_offset x27, 64
    .cfi_rel_offset x28, 72
    stp x29, x30, [sp, #80]
    .cfi_rel_offset x29, 80
    .cfi_rel_offset x30, 88
    stp d8, d9, [sp, #96]
    stp d10, d11, [sp, #112]
    stp d12, d13, [sp, #128]
    stp d14, d15, [sp, #144]
    ldp x3, x4, [x2, #8]  // the addresses of the thread's words: the same before and after
    ldp x5, x15, [x2, #24]
    ldr x9, [x3]
    ldp x10, x11, [x4]
    ldr x12, [x4, #16]
    ldr w13, [x5]
    ldr x14, [x2]
    stp x9, x10, [sp, #160]
    stp x11, x12, [sp, #176]
    stp x13, x14, [sp, #192]
    mov x9, sp
    // A greenlet's context is at the top of its stack. A frame that stepped over the guard must not be suspended.
    sub x14, x14, x9
    cmp x14, x15
    .cfi_remember_state
    b.hi 2f
1:  str x9, [x0]
    // The other stack was suspended at this instruction, so the same frame description applies to it.
    mov sp, x1
    ldp x19, x20, [sp, #0]
    ldp x21, x22, [sp, #16]
    ldp x23, x24, [sp, #32]
    ldp x25, x26, [sp, #48]
    ldp x27, x28, [sp, #64]
    ldp x29, x30, [sp, #80]
    ldp d8, d9, [sp, #96]
    ldp d10, d11, [sp, #112]
    ldp d12, d13, [sp, #128]
    ldp d14, d15, [sp, #144]
    ldp x9, x10, [sp, #160]
    ldp x11, x12, [sp, #176]
    ldp x13, x14, [sp, #192]
    str x9, [x3]
    stp x10, x11, [x4]
    str x12, [x4, #16]
    str w13, [x5]
    str x14, [x2]
    add sp, sp, #208
    .cfi_adjust_cfa_offset -208
    .cfi_restore x19
    .cfi_restore x20
    .cfi_restore x21
    .cfi_restore x22
    .cfi_restore x23
    .cfi_restore x24
    .cfi_restore x25
    .cfi_restore x26
    .cfi_restore x27
    .cfi_restore x28
    .cfi_restore x29
    .cfi_restore x30
    mov w0, #1
    ret
2:  // Deeper than the smallest stack allows, or not on a greenlet's stack. Callee-saved registers are already saved.
    .cfi_restore_state
    mov x19, x0
    mov x20, x1
    mov x21, x2
    mov x0, x2
    mov x1, x9
    bl gevent_check_stack_pointer
    mov x0, x19
    mov x1, x20
    mov x2, x21
    ldp x3, x4, [x2, #8]
    ldr x5, [x2, #24]
    mov x9, sp
    b 1b
    .cfi_endproc
    .size gevent_swap_stacks, .-gevent_swap_stacks

    .type gevent_stack_bottom, %function
gevent_stack_bottom:
    .cfi_startproc
    // The return address is undefined here, so unwinders stop. The nop makes the instruction before the entry, where
    // unwinders look, part of this frame.
    .cfi_undefined x30
    .cfi_undefined x29
    nop
    .globl gevent_stack_entry
    .hidden gevent_stack_entry
    .type gevent_stack_entry, %function
gevent_stack_entry:
    hint #36  // bti j
    mov x29, #0
    mov x30, #0
    mov x0, x20
    blr x19
    brk #1
    .cfi_endproc
    .size gevent_stack_bottom, .-gevent_stack_bottom
    .size gevent_stack_entry, .-gevent_stack_entry

    .section .note.GNU-stack,"",%progbits
#endif
