/* SPDX-License-Identifier: MIT */
#include "../lib/protocol.h"
#include "layout.h"

/* rdi: vCPU area, rsi: vCPU index */
	.section .entry, "ax"
	.globl entry
entry:
	cli
	cld
	lea AREA_STACK_END(%rdi), %rsp
	xor %ebp, %ebp
	call x86_boot
	ud2

	.text
/* The processor aligned the stack by 16 before it pushed five words, so bit 3 tells whether an error code came too. */
	.globl trap
trap:
	testb $8, %spl
	jnz 1f
	pushq (%rsp)
	movq $0, 8(%rsp)
1:	push %r15
	push %r14
	push %r13
	push %r12
	push %r11
	push %r10
	push %r9
	push %r8
	push %rbp
	push %rdi
	push %rsi
	push %rdx
	push %rcx
	push %rbx
	push %rax
	cld
	mov %rsp, %rdi
	call x86_trap
	pop %rax
	pop %rbx
	pop %rcx
	pop %rdx
	pop %rsi
	pop %rdi
	pop %rbp
	pop %r8
	pop %r9
	pop %r10
	pop %r11
	pop %r12
	pop %r13
	pop %r14
	pop %r15
	add $16, %rsp
	iretq

	.macro save_callee
	push %rbx
	push %rbp
	push %r12
	push %r13
	push %r14
	push %r15
	.endm

	.macro restore_callee
	pop %r15
	pop %r14
	pop %r13
	pop %r12
	pop %rbp
	pop %rbx
	.endm

	.macro load_registers
	mov 0x00(%rdi), %rax
	mov 0x08(%rdi), %rbx
	mov 0x10(%rdi), %rcx
	mov 0x18(%rdi), %rdx
	mov 0x20(%rdi), %rsi
	mov 0x30(%rdi), %rbp
	mov 0x38(%rdi), %r8
	mov 0x40(%rdi), %r9
	mov 0x48(%rdi), %r10
	mov 0x28(%rdi), %rdi
	.endm

/* One wait, with interrupts enabled or not; both end with interrupts disabled. */
	.globl x86_wait, x86_wait_off, x86_halt, x86_halt_off
x86_wait:
	sti
x86_halt:
	hlt
	cli
	ret
x86_wait_off:
x86_halt_off:
	hlt
	ret

/* int x86_guard(vcpu, command, run, cpu): 0 when run returned, else what x86_resume gave */
	.globl x86_guard
x86_guard:
	save_callee
	mov %rsp, CPU_RECOVER_SP(%rcx)
	call *%rdx
	xor %eax, %eax
	restore_callee
	ret

/* x86_resume(sp, flags, value): leaves whatever ran above sp, which x86_guard or x86_hypercall has stored */
	.globl x86_resume
x86_resume:
	mov $SEL_KERNEL_DATA, %eax
	mov %eax, %ss
	mov %eax, %ds
	mov %eax, %es
	mov %rdi, %rsp
	mov %edx, %eax
	push %rsi
	popfq
	restore_callee
	ret

/* x86_hypercall(registers, target, mode, cpu): calls target with these registers, and stores what came back in them */
	.globl x86_hypercall
x86_hypercall:
	save_callee
	test $HYPERCALL_CPL3, %edx
	jnz 2f
	push %rdi
	push %rsi
	test $HYPERCALL_32BIT, %edx
	jnz 1f
	load_registers
	call *(%rsp)
called:
	push %rax
	mov 0x10(%rsp), %rax
	mov %rbx, 0x08(%rax)
	mov %rcx, 0x10(%rax)
	mov %rdx, 0x18(%rax)
	mov %rsi, 0x20(%rax)
	mov %rdi, 0x28(%rax)
	mov %rbp, 0x30(%rax)
	mov %r8, 0x38(%rax)
	mov %r9, 0x40(%rax)
	mov %r10, 0x48(%rax)
	popq (%rax)
	add $0x10, %rsp
	restore_callee
	ret

1:	pushq $SEL_KERNEL_CODE32
	pushq $compat
	load_registers
	lretq

	/* CPL3 comes back by int3, whose handler stores the registers and resumes at the stack pointer kept here. */
2:	mov %rsp, CPU_USER_SP(%rcx)
	mov %rsp, AREA_TSS - AREA_CPU + TSS_STACK0(%rcx)
	lea AREA_USER_STACK_END - AREA_CPU - 0x10(%rcx), %r8
	mov %rsi, (%r8)
	pushq $(SEL_USER_DATA | 3)
	push %r8
	pushfq
	test $HYPERCALL_32BIT, %edx
	jnz 3f
	pushq $(SEL_USER_CODE64 | 3)
	pushq $user64
	jmp 4f
3:	pushq $(SEL_USER_CODE32 | 3)
	pushq $user32
4:	load_registers
	iretq

user64:	call *(%rsp)
	int3

	.code32
compat:
	call *(%esp)
	ljmp $SEL_KERNEL_CODE, $called
user32:	call *(%esp)
	int3
	.code64

	.section .note.GNU-stack, "", @progbits
