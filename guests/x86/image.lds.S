/* SPDX-License-Identifier: MIT */
#include "layout.h"

ENTRY(entry)
SECTIONS
{
	.header LAYOUT_IMAGE : { KEEP(*(.header)) }
	.entry LAYOUT_ENTRY : { KEEP(*(.entry)) }
	.vmcall LAYOUT_VMCALL : { KEEP(*(.vmcall)) }
	.vmmcall LAYOUT_VMMCALL : { KEEP(*(.vmmcall)) }
	.int_table LAYOUT_INT_TABLE : { KEEP(*(.int_table)) }
	.stubs LAYOUT_STUBS : { KEEP(*(.stubs)) }
	.idt LAYOUT_IDT : { KEEP(*(.idt)) }
	.code LAYOUT_CODE : { *(.text .text.* .rodata .rodata.*) }
	.tables LAYOUT_PAGE_TABLES : { KEEP(*(.tables)) }
	image_end = .;
	/* vCPUs share nothing but code. */
	.data : { *(.data .data.* .bss .bss.* COMMON) }
	ASSERT(SIZEOF(.data) == 0, "the image has writable data")
	/DISCARD/ : { *(.comment .note.* .eh_frame .eh_frame_hdr) }
}
