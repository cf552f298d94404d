// System V AMD64: rbx, rbp and r12 to r15 are callee-saved. So are the floating-point control words, but nothing in
// Swift sets them, and saving them would double the cost; a greenlet that changes them changes them for its thread.
#if defined(__x86_64__) && defined(__ELF__)

    .text

    // bool gevent_swap_stacks(void **save /* rdi */, void *load /* rsi */, gevent_hub *hub /* rdx */)
    //
    // The layout of a suspended stack, from its stack pointer up:
    //    0  access list head        40  the context
    //    8  task words (two)        48  r15, r14, r13, r12, rbx, rbp
    //   24  task-local fallback     96  return address
    //   32  errno
    .hidden gevent_check_stack_pointer
    .globl gevent_swap_stacks
    .hidden gevent_swap_stacks
    .type gevent_swap_stacks, @function
    .p2align 6
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
    subq $48, %rsp
    .cfi_adjust_cfa_offset 48
    movq 8(%rdx), %r8    // the addresses of the thread's words: the same before and after
    movq 16(%rdx), %r9
    movq 24(%rdx), %r10
    movq (%r8), %rax
    movups (%r9), %xmm0
    movq 16(%r9), %rcx
    movl (%r10), %r11d
    movq %rax, 0(%rsp)
    movups %xmm0, 8(%rsp)
    movq %rcx, 24(%rsp)
    movl %r11d, 32(%rsp)
    movq (%rdx), %rax
    movq %rax, 40(%rsp)
    // A greenlet's context is at the top of its stack. A frame that stepped over the guard must not be suspended.
    subq %rsp, %rax
    cmpq 32(%rdx), %rax
    .cfi_remember_state
    ja 2f
1:  movq %rsp, (%rdi)
    movq %rsi, %rsp
    // The other stack was suspended at this instruction, so the same frame description applies to it.
    movq 0(%rsp), %rax
    movups 8(%rsp), %xmm0
    movq 24(%rsp), %rcx
    movl 32(%rsp), %r11d
    movq 40(%rsp), %rsi
    movq %rax, (%r8)
    movups %xmm0, (%r9)
    movq %rcx, 16(%r9)
    movl %r11d, (%r10)
    movq %rsi, (%rdx)
    addq $48, %rsp
    .cfi_adjust_cfa_offset -48
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
    movl $1, %eax
    // A return, not a jump: both sides were called from the same place, so the processor's return stack predicts it.
    ret
2:  // Deeper than the smallest stack allows, or not on a greenlet's stack. Callee-saved registers are already saved.
    .cfi_restore_state
    movq %rdi, %rbx
    movq %rsi, %r12
    movq %rdx, %r13
    movq %rdx, %rdi
    movq %rsp, %rsi
    subq $8, %rsp
    .cfi_adjust_cfa_offset 8
    callq gevent_check_stack_pointer
    addq $8, %rsp
    .cfi_adjust_cfa_offset -8
    movq %rbx, %rdi
    movq %r12, %rsi
    movq %r13, %rdx
    movq 8(%rdx), %r8
    movq 16(%rdx), %r9
    movq 24(%rdx), %r10
    jmp 1b
    .cfi_endproc
    .size gevent_swap_stacks, .-gevent_swap_stacks

    .type gevent_stack_bottom, @function
gevent_stack_bottom:
    .cfi_startproc
    // The return address and the frame pointer are undefined here, so unwinders stop. The nop makes the instruction
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
