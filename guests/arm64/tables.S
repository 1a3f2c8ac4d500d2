/* SPDX-License-Identifier: MIT */
/* The image header and the page table. */
#include "../lib/protocol.h"
#include "layout.h"

	.section .header, "a"
	.4byte GUEST_IMAGE_MAGIC
	.4byte GUEST_PROTOCOL_VERSION
	.4byte 183
	.4byte AREA_SIZE
	.8byte LAYOUT_IMAGE
	.8byte entry
	.8byte LAYOUT_PAGE_TABLE
	.8byte image_end

/* Level 1 blocks: valid, access flag; memory inner shareable. Attribute 0 of MAIR_EL1 is memory, 1 is device. */
#define BLOCK		0x401
#define MEMORY		(BLOCK | 3 << 8 | 0 << 2)
#define DEVICE		(BLOCK | 1 << 2 | 1 << 54 | 1 << 53)
	.section .tables, "a"
	.8byte DEVICE
	.set gigabyte, 1
	.rept 255
	.8byte (gigabyte << 30) | MEMORY
	.set gigabyte, gigabyte + 1
	.endr
	.rept 256
	.8byte (gigabyte << 30) | DEVICE
	.set gigabyte, gigabyte + 1
	.endr

	.section .note.GNU-stack, "", @progbits
