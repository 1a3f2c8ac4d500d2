/* SPDX-License-Identifier: MIT */
#ifndef CONFORMANCE_ARM64_H
#define CONFORMANCE_ARM64_H

#include "../lib/guest.h"
#include "layout.h"

/* At AREA_CPU of each vCPU area. */
struct cpu {
	uint64_t recover_sp;
	uint64_t group0;		/* the interrupt being handled came as an FIQ */
};
_Static_assert(offsetof(struct cpu, recover_sp) == CPU_RECOVER_SP, "recover_sp");
_Static_assert(AREA_PRIVATE + sizeof(struct runtime) <= AREA_CPU, "runtime");

struct frame {
	uint64_t x[31];
	uint64_t pc;
	uint64_t pstate;
	uint64_t padding;
};
_Static_assert(sizeof(struct frame) == 0x110, "frame");

static inline struct cpu *cpu_of(struct vcpu *vcpu)
{
	return (struct cpu *)((uint8_t *)vcpu + AREA_CPU);
}

/* entry.S */
int arm64_guard(struct vcpu *vcpu, struct command *command, void (*run)(struct vcpu *, struct command *), struct cpu *cpu);
void arm64_resume(uint64_t sp, uint64_t daif, int value) __attribute__((noreturn));

/* gic.c; a register by its encoding, op0 in bits 15:14, then op1, CRn, CRm, op2. 0 when it is not one of those known. */
int gic_read(uint32_t reg, uint64_t *value);
int gic_write(uint32_t reg, uint64_t value);
uint32_t gic_slot(uint64_t intid);
uint64_t gic_enable(uint64_t priority_mask, uint64_t control, uint64_t groups);

#endif
