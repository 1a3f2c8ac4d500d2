/* SPDX-License-Identifier: MIT */
/*
 * Where things are in guest-physical memory, the same for both x86 images; virtual is physical. The harness has these
 * numbers in GuestLayout, and a harness test compiles this file to prove them equal.
 *
 *   0x00000000  not used: a null pointer's page
 *   0x00010000  pages for tests that need one they can unmap (shared_info, vcpu_info, hypercall page ...)
 *   0x00100000  the image: header, code, IDT, page tables
 *   0x00200000  vCPU areas, one after another
 *   0x01000000  scratch memory for tests
 *   0x02000000  end of the default memory
 *
 * The page tables map 4 GiB, all of it writable and open to CPL3: the first 4 MiB in 4 KiB pages, the rest in large
 * ones. Accessed and dirty bits are set, so that no walk writes to the image.
 */
#ifndef CONFORMANCE_X86_LAYOUT_H
#define CONFORMANCE_X86_LAYOUT_H

#define LAYOUT_TEST_PAGES	0x00010000
#define LAYOUT_TEST_PAGES_END	0x00100000
#define LAYOUT_IMAGE		0x00100000
#define LAYOUT_ENTRY		0x00101000
#define LAYOUT_VMCALL		0x00101800	/* vmcall; ret */
#define LAYOUT_VMMCALL		0x00101810	/* vmmcall; ret */
#define LAYOUT_INT_TABLE	0x00101c00	/* int n; ret, four bytes each */
#define LAYOUT_STUBS		0x00102000	/* interrupt entries, 16 bytes each */
#define LAYOUT_IDT		0x00103000
#define LAYOUT_CODE		0x00104000
#define LAYOUT_PAGE_TABLES	0x00110000
#define LAYOUT_SMALL_TABLES	0x00116000	/* x86_64: page tables of the first 4 MiB */
#define LAYOUT_SMALL_TABLES_32	0x00111000	/* x86_32: page table of the first 4 MiB */
#define LAYOUT_AREAS		0x00200000
#define LAYOUT_SCRATCH		0x01000000
#define LAYOUT_SCRATCH_END	0x02000000
#define LAYOUT_MEMORY		0x02000000
#define LAYOUT_SMALL_END	0x00400000

/* In a vCPU area, after the runtime's own words. */
#define AREA_GDT		0x0d100
#define AREA_TSS		0x0d180
#define AREA_CPU		0x0d200
#define AREA_NMI_STACK_END	0x0d800
#define AREA_FAULT_STACK_END	0x0dc00
#define AREA_USER_STACK_END	0x0e000
#define AREA_STACK_END		0x10000

/* Selectors; in the 32-bit image KERNEL_CODE is 32-bit code and the 64-bit ones are absent. */
#define SEL_KERNEL_CODE		0x08
#define SEL_KERNEL_DATA		0x10
#define SEL_KERNEL_CODE32	0x18
#define SEL_USER_CODE32		0x20
#define SEL_USER_DATA		0x28
#define SEL_USER_CODE64		0x30
#define SEL_TSS			0x38
#define GDT_LIMIT		0x47

/* struct cpu, for assembly */
#define CPU_RECOVER_SP		0x00
#define CPU_USER_SP		0x08

/* Both kinds of TSS keep the CPL0 stack pointer at 4 and end at the same byte. */
#define TSS_STACK0		0x04
#define TSS_LIMIT		0x67

#endif
