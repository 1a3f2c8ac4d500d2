/* SPDX-License-Identifier: MIT */
#ifndef CONFORMANCE_X86_H
#define CONFORMANCE_X86_H

#include "../lib/guest.h"
#include "layout.h"

struct registers {
	uint64_t ax, bx, cx, dx, si, di, bp, r8, r9, r10;
};

/* At AREA_CPU of each vCPU area. */
struct cpu {
	uint64_t recover_sp;
	uint64_t user_sp;
	uint64_t registers;		/* of the hypercall being made at CPL3 */
	uint64_t apic_base;		/* the MSR, as last read or written here */
};
_Static_assert(offsetof(struct cpu, recover_sp) == CPU_RECOVER_SP, "recover_sp");
_Static_assert(offsetof(struct cpu, user_sp) == CPU_USER_SP, "user_sp");
_Static_assert(AREA_PRIVATE + sizeof(struct runtime) <= AREA_GDT, "runtime");

#ifdef __x86_64__
struct frame {
	uint64_t ax, bx, cx, dx, si, di, bp, r8, r9, r10, r11, r12, r13, r14, r15;
	uint64_t vector, error, ip, cs, flags, sp, ss;
};
#else
struct frame {
	uint32_t di, si, bp, unused, bx, dx, cx, ax;
	uint32_t vector, error, ip, cs, flags, sp, ss;	/* sp and ss only when the CPL changed */
};
#endif

static inline struct cpu *cpu_of(struct vcpu *vcpu)
{
	return (struct cpu *)((uint8_t *)vcpu + AREA_CPU);
}

static inline uint64_t rdmsr(uint32_t msr)
{
	uint32_t low, high;

	asm volatile("rdmsr" : "=a"(low), "=d"(high) : "c"(msr));
	return low | (uint64_t)high << 32;
}

static inline void wrmsr(uint32_t msr, uint64_t value)
{
	asm volatile("wrmsr" : : "c"(msr), "a"((uint32_t)value), "d"((uint32_t)(value >> 32)) : "memory");
}

/* entry64.S, entry32.S */
int x86_guard(struct vcpu *vcpu, struct command *command, void (*run)(struct vcpu *, struct command *), struct cpu *cpu);
void x86_resume(uintptr_t sp, uintptr_t flags, int value) __attribute__((noreturn));
void x86_wait(void);
void x86_wait_off(void);
extern const uint8_t x86_halt[], x86_halt_off[];
void x86_hypercall(struct registers *registers, uintptr_t target, uint32_t mode, struct cpu *cpu);

/* xen.c */
void xen_upcall(struct vcpu *vcpu, uint64_t vcpu_info, uint64_t shared_info, uint64_t filter, uint32_t flags);

/* apic.c */
void apic_learn(struct cpu *cpu);
void apic_wrote_base(struct cpu *cpu, uint64_t value);
uint64_t apic_enable(struct cpu *cpu, uint32_t spurious, int x2apic);
uint64_t apic_read(struct cpu *cpu, uint32_t reg);
void apic_write(struct cpu *cpu, uint32_t reg, uint64_t value);
void apic_ipi(struct cpu *cpu, uint32_t destination, uint32_t command);

#endif
