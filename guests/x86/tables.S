/* SPDX-License-Identifier: MIT */
/* Everything both images have at a fixed place: header, hypercall instructions, INT n, interrupt entries, IDT, page tables. */

#include "../lib/protocol.h"
#include "layout.h"

	.section .header, "a"
	.long GUEST_IMAGE_MAGIC
	.long GUEST_PROTOCOL_VERSION
#ifdef __x86_64__
	.long 62
#else
	.long 3
#endif
	.long AREA_SIZE
	.quad LAYOUT_IMAGE
	.quad LAYOUT_ENTRY
	.quad LAYOUT_PAGE_TABLES
	.long image_end, 0

/* KVM may rewrite these two in place with the machine's native instruction. */
	.section .vmcall, "ax"
	vmcall
	ret
	.section .vmmcall, "ax"
	vmmcall
	ret

/* In bytes, because an assembler turns int 3 into the one-byte breakpoint. */
	.section .int_table, "ax"
	.set vector, 0
	.rept 256
	.byte 0xcd, vector, 0xc3, 0x90
	.set vector, vector + 1
	.endr

	.section .stubs, "ax"
	.set vector, 0
	.rept 256
	.balign 16, 0x90
	push $vector
	jmp trap
	.set vector, vector + 1
	.endr

	.section .idt, "a"
	.set vector, 0
	.rept 256
	.set handler, LAYOUT_STUBS + vector * 16
	.word handler & 0xffff
	.word SEL_KERNEL_CODE
#ifdef __x86_64__
	/* stack 1 for NMI, 2 for double fault and machine check */
	.if vector == 2
	.byte 1
	.elseif vector == 8 || vector == 18
	.byte 2
	.else
	.byte 0
	.endif
#else
	.byte 0
#endif
	/* int3 is how CPL3 code comes back */
	.if vector == 3
	.byte 0xee
	.else
	.byte 0x8e
	.endif
	.word handler >> 16
#ifdef __x86_64__
	.long 0, 0
#endif
	.set vector, vector + 1
	.endr

	.section .tables, "a"
	.balign 4096
#ifdef __x86_64__
	.quad LAYOUT_PAGE_TABLES + 0x1000 + 0x67
	.fill 511, 8, 0
	.set n, 0
	.rept 4
	.quad LAYOUT_PAGE_TABLES + 0x2000 + n * 0x1000 + 0x67
	.set n, n + 1
	.endr
	.fill 508, 8, 0
	.quad LAYOUT_SMALL_TABLES + 0x67
	.quad LAYOUT_SMALL_TABLES + 0x1000 + 0x67
	.set n, 2
	.rept 2046
	.quad (n << 21) + 0xe7
	.set n, n + 1
	.endr
	.set n, 0
	.rept 1024
	.quad (n << 12) + 0x67
	.set n, n + 1
	.endr
#else
	.long LAYOUT_SMALL_TABLES_32 + 0x67
	.set n, 1
	.rept 1023
	.long (n << 22) + 0xe7
	.set n, n + 1
	.endr
	.set n, 0
	.rept 1024
	.long (n << 12) + 0x67
	.set n, n + 1
	.endr
#endif
	.section .note.GNU-stack, "", @progbits
