/* SPDX-License-Identifier: MIT */
#include "layout.h"

ENTRY(entry)
SECTIONS
{
	.header LAYOUT_IMAGE : { KEEP(*(.header)) }
	.vectors LAYOUT_VECTORS : { KEEP(*(.vectors)) }
	.entry LAYOUT_ENTRY : { KEEP(*(.entry)) }
	.code LAYOUT_CODE : { *(.text .text.* .rodata .rodata.*) }
	.tables LAYOUT_PAGE_TABLE : { KEEP(*(.tables)) }
	image_end = .;
	/* vCPUs share nothing but code. */
	.data : { *(.data .data.* .bss .bss.* COMMON) }
	ASSERT(SIZEOF(.data) == 0, "the image has writable data")
	ASSERT(image_end <= LAYOUT_TEST_PAGES, "the image is too long")
	/DISCARD/ : { *(.comment .note.* .eh_frame .eh_frame_hdr) }
}
