/* SPDX-License-Identifier: MIT */
#include "../lib/protocol.h"
#include "layout.h"

/* Attribute 0: normal memory, write-back; 1: device, nGnRE. */
#define MAIR		0x04ff
/* 39 bits of address, 4 KiB granule, walks cacheable and inner shareable, no TTBR1, 40 bits of output. */
#define TCR		(25 | 1 << 8 | 1 << 10 | 3 << 12 | 1 << 23 | 2 << 32)
/* Its bits that are one by definition, instruction cache, data cache, MMU. */
#define SCTLR		(0x30d00800 | 1 << 12 | 1 << 2 | 1)

/* x0: vCPU area, x1: vCPU index */
	.section .entry, "ax"
	.globl entry
entry:
	msr daifset, #0xf
	msr spsel, #1
	ldr x2, =MAIR
	msr mair_el1, x2
	ldr x2, =TCR
	msr tcr_el1, x2
	ldr x2, =LAYOUT_PAGE_TABLE
	msr ttbr0_el1, x2
	ldr x2, =LAYOUT_VECTORS
	msr vbar_el1, x2
	isb
	tlbi vmalle1
	ic iallu
	dsb nsh
	isb
	ldr x2, =SCTLR
	msr sctlr_el1, x2
	isb
	msr tpidr_el1, x0
	mov x2, #AREA_STACK_END
	add sp, x0, x2
	mov x29, xzr
	mov x30, xzr
	bl arm64_boot
	brk #0
	.ltorg

	.macro vector kind
	.balign 0x80
	sub sp, sp, #0x110
	stp x0, x1, [sp]
	mov x0, #\kind
	b trap
	.endm

	.section .vectors, "ax"
	.set kind, 0
	.rept 16
	vector kind
	.set kind, kind + 1
	.endr

	.text
trap:
	stp x2, x3, [sp, #0x10]
	stp x4, x5, [sp, #0x20]
	stp x6, x7, [sp, #0x30]
	stp x8, x9, [sp, #0x40]
	stp x10, x11, [sp, #0x50]
	stp x12, x13, [sp, #0x60]
	stp x14, x15, [sp, #0x70]
	stp x16, x17, [sp, #0x80]
	stp x18, x19, [sp, #0x90]
	stp x20, x21, [sp, #0xa0]
	stp x22, x23, [sp, #0xb0]
	stp x24, x25, [sp, #0xc0]
	stp x26, x27, [sp, #0xd0]
	stp x28, x29, [sp, #0xe0]
	mrs x2, elr_el1
	stp x30, x2, [sp, #0xf0]
	mrs x3, spsr_el1
	str x3, [sp, #0x100]
	mov x1, sp
	bl arm64_trap
	ldr x3, [sp, #0x100]
	msr spsr_el1, x3
	ldp x30, x2, [sp, #0xf0]
	msr elr_el1, x2
	ldp x2, x3, [sp, #0x10]
	ldp x4, x5, [sp, #0x20]
	ldp x6, x7, [sp, #0x30]
	ldp x8, x9, [sp, #0x40]
	ldp x10, x11, [sp, #0x50]
	ldp x12, x13, [sp, #0x60]
	ldp x14, x15, [sp, #0x70]
	ldp x16, x17, [sp, #0x80]
	ldp x18, x19, [sp, #0x90]
	ldp x20, x21, [sp, #0xa0]
	ldp x22, x23, [sp, #0xb0]
	ldp x24, x25, [sp, #0xc0]
	ldp x26, x27, [sp, #0xd0]
	ldp x28, x29, [sp, #0xe0]
	ldp x0, x1, [sp]
	add sp, sp, #0x110
	eret

	.macro restore_callee
	ldp x19, x20, [sp]
	ldp x21, x22, [sp, #0x10]
	ldp x23, x24, [sp, #0x20]
	ldp x25, x26, [sp, #0x30]
	ldp x27, x28, [sp, #0x40]
	ldp x29, x30, [sp, #0x50]
	add sp, sp, #0x60
	.endm

/* int arm64_guard(vcpu, command, run, cpu): 0 when run returned, else what arm64_resume gave */
	.globl arm64_guard
arm64_guard:
	sub sp, sp, #0x60
	stp x19, x20, [sp]
	stp x21, x22, [sp, #0x10]
	stp x23, x24, [sp, #0x20]
	stp x25, x26, [sp, #0x30]
	stp x27, x28, [sp, #0x40]
	stp x29, x30, [sp, #0x50]
	mov x4, sp
	str x4, [x3, #CPU_RECOVER_SP]
	blr x2
	mov w0, wzr
	restore_callee
	ret

/* arm64_resume(sp, daif, value): leaves whatever ran above sp, which arm64_guard has stored */
	.globl arm64_resume
arm64_resume:
	mov sp, x0
	mov w0, w2
	msr daif, x1
	restore_callee
	ret

	.section .note.GNU-stack, "", @progbits
