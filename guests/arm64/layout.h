/* SPDX-License-Identifier: MIT */
/*
 * Where things are in guest-physical memory of the arm64 guest; virtual is physical. The harness has these numbers in
 * Arm64Layout, and a harness test compiles this file to prove them equal.
 *
 *   0x08000000  distributor
 *   0x08040000  ITSs, 128 KiB each
 *   0x08100000  redistributors, 128 KiB each
 *   0x0b000000  call-outs
 *   0x10000000  devices that a test maps
 *   0x40000000  memory: the image: header, vectors, code, page table
 *   0x40010000  pages for tests that need one they can unmap
 *   0x40200000  vCPU areas, one after another
 *   0x41000000  scratch memory for tests, LPI and ITS tables among it
 *   0x42000000  end of the default memory
 *
 * The guest runs with the MMU on: memory has to be cacheable to be coherent with what the harness writes and to have
 * exclusive accesses at all. One table of 1 GiB blocks maps 512 GiB: the first GiB and the upper half as device memory,
 * the rest as normal memory. Access flags are set, so that no walk writes to the image.
 */
#ifndef CONFORMANCE_ARM64_LAYOUT_H
#define CONFORMANCE_ARM64_LAYOUT_H

#define LAYOUT_DISTRIBUTOR	0x08000000
#define LAYOUT_ITS		0x08040000
#define LAYOUT_REDISTRIBUTORS	0x08100000
#define LAYOUT_DEVICES		0x10000000
#define LAYOUT_IMAGE		0x40000000
#define LAYOUT_VECTORS		0x40000800
#define LAYOUT_ENTRY		0x40001000
#define LAYOUT_CODE		0x40001100
#define LAYOUT_PAGE_TABLE	0x4000f000
#define LAYOUT_TEST_PAGES	0x40010000
#define LAYOUT_TEST_PAGES_END	0x40200000
#define LAYOUT_AREAS		0x40200000
#define LAYOUT_SCRATCH		0x41000000
#define LAYOUT_SCRATCH_END	0x42000000

/* In a vCPU area, after the runtime's own words; the stack lies between them and the script. */
#define AREA_CPU		0x0d100
#define AREA_STACK_END		0x10000

/* struct cpu, for assembly */
#define CPU_RECOVER_SP		0x00

/* Policies and counters are found by slot. */
#define SLOT_OWN_END		128	/* INTIDs below have a slot each */
#define SLOT_SPI		128	/* SPIs from 128 on: this + INTID % 31 */
#define SLOT_SPURIOUS		159	/* INTIDs 1020 to 1023 */
#define SLOT_LPI		160	/* LPIs: this + (INTID - 8192) % 96 */
#define SLOT_LPIS		96

#endif
