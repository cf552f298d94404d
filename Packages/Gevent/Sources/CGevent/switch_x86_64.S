// System V AMD64: rbx, rbp and r12 to r15 belong to the caller. The floating-point control words do too, but nothing in
// Swift sets them and saving them would double the price; a greenlet that changes them changes them for its thread.
#if defined(__x86_64__) && defined(__ELF__)

    .text

    // void gevent_swap_stacks(void **save, void *load)
    .globl gevent_swap_stacks
    .hidden gevent_swap_stacks
    .type gevent_swap_stacks, @function
    .p2align 4
gevent_swap_stacks:
    .cfi_startproc
    pushq %rbp
    .cfi_adjust_cfa_offset 8
    .cfi_rel_offset %rbp, 0
    pushq %rbx
    .cfi_adjust_cfa_offset 8
    .cfi_rel_offset %rbx, 0
    pushq %r12
    .cfi_adjust_cfa_offset 8
    .cfi_rel_offset %r12, 0
    pushq %r13
    .cfi_adjust_cfa_offset 8
    .cfi_rel_offset %r13, 0
    pushq %r14
    .cfi_adjust_cfa_offset 8
    .cfi_rel_offset %r14, 0
    pushq %r15
    .cfi_adjust_cfa_offset 8
    .cfi_rel_offset %r15, 0
    movq %rsp, (%rdi)
    movq %rsi, %rsp
    // The other stack was left at this very place, so the same frame description holds for it.
    popq %r15
    .cfi_adjust_cfa_offset -8
    .cfi_restore %r15
    popq %r14
    .cfi_adjust_cfa_offset -8
    .cfi_restore %r14
    popq %r13
    .cfi_adjust_cfa_offset -8
    .cfi_restore %r13
    popq %r12
    .cfi_adjust_cfa_offset -8
    .cfi_restore %r12
    popq %rbx
    .cfi_adjust_cfa_offset -8
    .cfi_restore %rbx
    popq %rbp
    .cfi_adjust_cfa_offset -8
    .cfi_restore %rbp
    // A return, not a jump: there is one call site, so the processor's return stack predicts it.
    ret
    .cfi_endproc
    .size gevent_swap_stacks, .-gevent_swap_stacks

    .type gevent_stack_bottom, @function
gevent_stack_bottom:
    .cfi_startproc
    // The return address and the frame pointer are undefined here: unwinders stop. The nop makes the instruction
    // before the entry, where unwinders look, part of this frame.
    .cfi_undefined %rip
    .cfi_undefined %rbp
    nop
    .globl gevent_stack_entry
    .hidden gevent_stack_entry
    .type gevent_stack_entry, @function
gevent_stack_entry:
    xorl %ebp, %ebp
    movq %r13, %rdi
    callq *%r12
    ud2
    .cfi_endproc
    .size gevent_stack_bottom, .-gevent_stack_bottom
    .size gevent_stack_entry, .-gevent_stack_entry

    .section .note.GNU-stack,"",@progbits
#endif
