/* SPDX-License-Identifier: MIT */
/* The part of a guest that no architecture owns, and what it asks of one. */
#ifndef CONFORMANCE_GUEST_H
#define CONFORMANCE_GUEST_H

#include "protocol.h"

struct vcpu {
	struct control control;
	struct record log[LOG_RECORDS];
	uint8_t private[AREA_SCRIPT - AREA_PRIVATE];
	struct command script[SCRIPT_COMMANDS];
};
_Static_assert(sizeof(struct vcpu) == AREA_SIZE, "vCPU area");

/* First thing in the private part of the area; an architecture puts its own after it. */
struct runtime {
	uint64_t reserved;		/* log records begun */
	uint32_t logging;		/* loggers on this vCPU, an NMI may interrupt one */
	uint32_t depth;			/* handlers being executed */
	uint32_t next;			/* command to run after this one */
	uint32_t running;		/* a command is being executed */
};

static inline struct runtime *runtime(struct vcpu *vcpu)
{
	return (struct runtime *)vcpu->private;
}

static inline void *pointer(uint64_t address)
{
	return (void *)(uintptr_t)address;
}

/* script.c */
void guest_serve(struct vcpu *vcpu) __attribute__((noreturn));
void guest_log(struct vcpu *vcpu, uint16_t kind, uint64_t value, uint64_t extra);
void guest_interrupt(struct vcpu *vcpu, uint16_t kind, uint32_t slot, uint64_t value, uint64_t how);
int guest_fault(struct vcpu *vcpu, uint32_t vector, uint64_t error, uint64_t pc, uint64_t address);
void guest_die(struct vcpu *vcpu, uint64_t vector, uint64_t error, uint64_t pc, uint64_t address) __attribute__((noreturn));

/* Given by the architecture. */
void arch_callout(uint32_t value);
uint64_t arch_timestamp(void);
uint64_t arch_load(uint64_t address, uint32_t width);
void arch_store(uint64_t address, uint64_t value, uint32_t width);
uint64_t arch_xadd_local(uint64_t *counter);
/* Runs the command so that a fault ends it; 0 when it ran to its end. */
int arch_guard(struct vcpu *vcpu, struct command *command, void (*run)(struct vcpu *, struct command *));
void arch_command(struct vcpu *vcpu, struct command *command);
void arch_action(struct vcpu *vcpu, struct action *action);
void arch_copy(uint64_t to, uint64_t from, uint64_t count, uint32_t width);
void arch_fill(uint64_t to, uint64_t value, uint64_t count, uint32_t width);
int arch_interrupts(int on);		/* returns what was */
void arch_wait(int interrupts);		/* one wait; ends with interrupts off */
void arch_pause(void);
void arch_eoi(struct vcpu *vcpu, uint64_t value);

#endif
