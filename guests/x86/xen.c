// SPDX-License-Identifier: MIT
/* What a Xen guest does when it is told to look at its event channels (2-level ABI), noting all it saw. */

#include "x86.h"

#define VCPU_INFO_UPCALL_PENDING	0
#define VCPU_INFO_UPCALL_MASK		1
#define VCPU_INFO_SELECTOR_64		8
#define VCPU_INFO_SELECTOR_32		4
#define SHARED_INFO_PENDING		0x800

static uint32_t take32(uint64_t address, uint32_t value)
{
	asm volatile("xchgl %0, %1" : "+r"(value), "+m"(*(volatile uint32_t *)pointer(address)) : : "memory");
	return value;
}

static uint64_t take_selector(uint64_t address, uint32_t width)
{
#ifdef __x86_64__
	uint64_t value = 0;

	if (width == 8) {
		asm volatile("xchgq %0, %1" : "+r"(value), "+m"(*(volatile uint64_t *)pointer(address)) : : "memory");
		return value;
	}
#endif
	/* A 32-bit guest uses the 64-bit layout only when a test is made to: two halves will do. */
	return take32(address, 0) | (width == 8 ? (uint64_t)take32(address + 4, 0) << 32 : 0);
}

void xen_upcall(struct vcpu *vcpu, uint64_t vcpu_info, uint64_t shared_info, uint64_t filter, uint32_t flags)
{
	uint32_t width = flags & XEN_32BIT ? 4 : 8, bits = width * 8;
	uint64_t pending = shared_info + SHARED_INFO_PENDING, mask = pending + bits * width;
	uint64_t selector_at = vcpu_info + (width == 4 ? VCPU_INFO_SELECTOR_32 : VCPU_INFO_SELECTOR_64);
	uint64_t upcall = arch_load(vcpu_info + VCPU_INFO_UPCALL_PENDING, 1) |
			  arch_load(vcpu_info + VCPU_INFO_UPCALL_MASK, 1) << 8;
	uint64_t selector;

	/* The flag goes down before the selector is taken: an event that comes in between raises it again. */
	if (!(flags & XEN_KEEP_UPCALL))
		arch_store(vcpu_info + VCPU_INFO_UPCALL_PENDING, 0, 1);
	selector = flags & XEN_KEEP_SELECTOR ? arch_load(selector_at, width) : take_selector(selector_at, width);
	guest_log(vcpu, RECORD_UPCALL, selector, upcall);
	for (uint32_t word = 0; word < bits; word++) {
		uint64_t seen, found;

		if (!(selector >> word & 1))
			continue;
		seen = arch_load(pending + word * width, width);
		found = seen & ~arch_load(mask + word * width, width);
		if (filter)
			found &= arch_load(filter + word * width, width);
		for (uint32_t bit = 0; bit < bits; bit++) {
			uint32_t port = word * bits + bit;

			if (!(found >> bit & 1))
				continue;
			if (flags & XEN_MASK_PORTS)
				asm volatile("lock btsl %1, %0" : "+m"(*(volatile uint32_t *)pointer(mask)) : "r"(port) : "memory", "cc");
			if (!(flags & XEN_KEEP_PENDING))
				asm volatile("lock btrl %1, %0" : "+m"(*(volatile uint32_t *)pointer(pending)) : "r"(port) : "memory", "cc");
			guest_log(vcpu, RECORD_EVENT_CHANNEL, port, seen);
		}
	}
}
