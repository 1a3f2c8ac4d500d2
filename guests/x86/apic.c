// SPDX-License-Identifier: MIT
/* The local APIC by its xAPIC register offsets, whichever mode it is in. */

#include "x86.h"

#define MSR_APIC_BASE	0x1b
#define BASE_X2APIC	0x400
#define BASE_ENABLED	0x800

#define APIC_ID		0x020
#define APIC_SVR	0x0f0
#define APIC_ICR	0x300
#define APIC_ICR2	0x310

static int x2apic(struct cpu *cpu)
{
	return !!(cpu->apic_base & BASE_X2APIC);
}

static volatile uint32_t *mmio(struct cpu *cpu, uint32_t reg)
{
	return pointer((cpu->apic_base & 0xfffff000) + reg);
}

/* An explicit form: KVM has to be able to decode the instruction that accesses the page. */
static uint32_t mmio_read(struct cpu *cpu, uint32_t reg)
{
	uint32_t value;

	asm volatile("movl %1, %0" : "=r"(value) : "m"(*mmio(cpu, reg)) : "memory");
	return value;
}

static void mmio_write(struct cpu *cpu, uint32_t reg, uint32_t value)
{
	asm volatile("movl %1, %0" : "=m"(*mmio(cpu, reg)) : "r"(value) : "memory");
}

void apic_learn(struct cpu *cpu)
{
	cpu->apic_base = rdmsr(MSR_APIC_BASE);
}

void apic_wrote_base(struct cpu *cpu, uint64_t value)
{
	cpu->apic_base = value;
}

static void write_base(struct cpu *cpu, uint64_t value)
{
	wrmsr(MSR_APIC_BASE, value);
	cpu->apic_base = value;
}

uint64_t apic_enable(struct cpu *cpu, uint32_t spurious, int want_x2apic)
{
	uint64_t base;

	apic_learn(cpu);
	base = cpu->apic_base;
	/* Back from x2APIC there is no way but through a disabled APIC. */
	if (x2apic(cpu) && !want_x2apic) {
		base &= ~(uint64_t)(BASE_X2APIC | BASE_ENABLED);
		write_base(cpu, base);
	}
	if (!(base & BASE_ENABLED)) {
		base |= BASE_ENABLED;
		write_base(cpu, base);
	}
	if (want_x2apic && !(base & BASE_X2APIC))
		write_base(cpu, base | BASE_X2APIC);
	apic_write(cpu, APIC_SVR, 0x100 | (spurious & 0xff));
	return x2apic(cpu) ? apic_read(cpu, APIC_ID) : apic_read(cpu, APIC_ID) >> 24;
}

uint64_t apic_read(struct cpu *cpu, uint32_t reg)
{
	if (x2apic(cpu))
		return rdmsr(0x800 + (reg >> 4));
	if (reg == APIC_ICR)
		return mmio_read(cpu, APIC_ICR) | (uint64_t)mmio_read(cpu, APIC_ICR2) << 32;
	return mmio_read(cpu, reg);
}

void apic_write(struct cpu *cpu, uint32_t reg, uint64_t value)
{
	if (x2apic(cpu)) {
		wrmsr(0x800 + (reg >> 4), value);
		return;
	}
	if (reg == APIC_ICR)
		mmio_write(cpu, APIC_ICR2, (uint32_t)(value >> 32));
	mmio_write(cpu, reg, (uint32_t)value);
}

void apic_ipi(struct cpu *cpu, uint32_t destination, uint32_t command)
{
	apic_write(cpu, APIC_ICR, (uint64_t)(x2apic(cpu) ? destination : destination << 24) << 32 | command);
}
