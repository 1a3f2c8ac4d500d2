/* SPDX-License-Identifier: MIT */
#include "../lib/protocol.h"
#include "layout.h"

/* ebx: vCPU area, ecx: vCPU index; C is called with arguments in eax, edx, ecx */
	.section .entry, "ax"
	.globl entry
entry:
	cli
	cld
	lea AREA_STACK_END(%ebx), %esp
	xor %ebp, %ebp
	mov %ebx, %eax
	mov %ecx, %edx
	call x86_boot
	ud2

	.text
/*
 * After the vector comes an error code or none: also an interrupt, or int n, may use a vector that has one as an
 * exception. Without it the second word is a selector, which no code address is as small as.
 */
	.globl trap
trap:
	cmpl $0x40, 8(%esp)
	jae 1f
	pushl (%esp)
	movl $0, 4(%esp)
1:	pushal
	cld
	mov $SEL_KERNEL_DATA, %eax
	mov %eax, %ds
	mov %eax, %es
	mov %esp, %eax
	call x86_trap
	popal
	add $8, %esp
	iretl

	.macro save_callee
	push %ebx
	push %ebp
	push %esi
	push %edi
	.endm

	.macro restore_callee
	pop %edi
	pop %esi
	pop %ebp
	pop %ebx
	.endm

/* The registers are kept in 64-bit words, in the order of the 64-bit image. */
	.macro load_registers
	mov 0x00(%edi), %eax
	mov 0x08(%edi), %ebx
	mov 0x10(%edi), %ecx
	mov 0x18(%edi), %edx
	mov 0x20(%edi), %esi
	mov 0x30(%edi), %ebp
	mov 0x28(%edi), %edi
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

/* int x86_guard(vcpu, command, run; cpu on the stack) */
	.globl x86_guard
x86_guard:
	save_callee
	mov 0x14(%esp), %ebx
	mov %esp, CPU_RECOVER_SP(%ebx)
	call *%ecx
	xor %eax, %eax
	restore_callee
	ret

/* x86_resume(sp, flags, value) */
	.globl x86_resume
x86_resume:
	mov $SEL_KERNEL_DATA, %ebx
	mov %ebx, %ds
	mov %ebx, %es
	mov %eax, %esp
	mov %ecx, %eax
	push %edx
	popfl
	restore_callee
	ret

/* x86_hypercall(registers, target, mode; cpu on the stack) */
	.globl x86_hypercall
x86_hypercall:
	save_callee
	mov 0x14(%esp), %ebx
	mov %eax, %edi
	test $HYPERCALL_CPL3, %ecx
	jnz 1f
	push %edi
	push %edx
	load_registers
	call *(%esp)
	push %eax
	mov 0x8(%esp), %eax
	mov %ebx, 0x08(%eax)
	mov %ecx, 0x10(%eax)
	mov %edx, 0x18(%eax)
	mov %esi, 0x20(%eax)
	mov %edi, 0x28(%eax)
	mov %ebp, 0x30(%eax)
	popl (%eax)
	add $8, %esp
	restore_callee
	ret

1:	mov %esp, CPU_USER_SP(%ebx)
	mov %esp, AREA_TSS - AREA_CPU + TSS_STACK0(%ebx)
	lea AREA_USER_STACK_END - AREA_CPU - 0x10(%ebx), %esi
	mov %edx, (%esi)
	push $(SEL_USER_DATA | 3)
	push %esi
	pushfl
	push $(SEL_USER_CODE32 | 3)
	push $user32
	load_registers
	iretl

user32:	call *(%esp)
	int3

	.section .note.GNU-stack, "", @progbits
