// SPDX-License-Identifier: MIT
/* Start of a vCPU, traps, and the commands only arm64 has. */

#include "arm64.h"

#define PSTATE_I	0x80
#define PSTATE_F	0x40

/* Vectors of the exception level the guest runs at, with its own stack pointer. */
#define TRAP_SYNCHRONOUS	4
#define TRAP_IRQ		5
#define TRAP_FIQ		6
#define TRAP_SERROR		7

#define ICC_IAR0	(3 << 14 | 12 << 7 | 8 << 3 | 0)
#define ICC_IAR1	(3 << 14 | 12 << 7 | 12 << 3 | 0)

void arm64_boot(struct vcpu *vcpu, uint64_t index)
{
	for (uint32_t n = 0; n < 0x200; n++)
		((volatile uint8_t *)vcpu->private)[n] = 0;
	vcpu->control.index = (uint32_t)index;
	guest_serve(vcpu);
}

static struct vcpu *own_area(void)
{
	uint64_t area;

	asm volatile("mrs %0, tpidr_el1" : "=r"(area));
	return pointer(area);
}

/* Exception classes as the protocol numbers them. */
static uint32_t exception(uint64_t syndrome)
{
	switch (syndrome >> 26 & 0x3f) {
	case 0x00: return EXCEPTION_UNDEFINED;
	case 0x25: return EXCEPTION_DATA_ABORT;
	case 0x21: return EXCEPTION_INSTRUCTION_ABORT;
	case 0x18: return EXCEPTION_SYSTEM_REGISTER;
	case 0x22:
	case 0x26: return EXCEPTION_ALIGNMENT;
	default: return EXCEPTION_OTHER;
	}
}

static void interrupt(struct vcpu *vcpu, struct frame *frame, int group0)
{
	struct cpu *cpu = cpu_of(vcpu);
	uint64_t intid = 0, before = cpu->group0;
	uint32_t slot;

	gic_read(group0 ? ICC_IAR0 : ICC_IAR1, &intid);
	slot = gic_slot(intid);
	if (slot == SLOT_SPURIOUS) {
		((volatile uint32_t *)vcpu->control.taken)[slot]++;
		return;
	}
	cpu->group0 = (uint64_t)group0;
	guest_interrupt(vcpu, group0 ? RECORD_FIQ : RECORD_INTERRUPT, slot, intid, 0);
	cpu->group0 = before;
	if (vcpu->control.policies[slot] & POLICY_RETURN_MASKED)
		frame->pstate |= PSTATE_I | PSTATE_F;
}

void arm64_trap(uint64_t kind, struct frame *frame)
{
	struct vcpu *vcpu = own_area();
	uint64_t syndrome, address;

	if (kind == TRAP_IRQ || kind == TRAP_FIQ) {
		interrupt(vcpu, frame, kind == TRAP_FIQ);
		return;
	}
	asm volatile("mrs %0, esr_el1" : "=r"(syndrome));
	asm volatile("mrs %0, far_el1" : "=r"(address));
	if (kind != TRAP_SYNCHRONOUS)
		guest_die(vcpu, EXCEPTION_OTHER + kind, syndrome, frame->pc, address);
	if (guest_fault(vcpu, exception(syndrome), syndrome, frame->pc, address))
		arm64_resume(cpu_of(vcpu)->recover_sp, frame->pstate & 0x3c0, 1);
}

int arch_guard(struct vcpu *vcpu, struct command *command, void (*run)(struct vcpu *, struct command *))
{
	return arm64_guard(vcpu, command, run, cpu_of(vcpu));
}

/* What was written before is there for whoever learns of the call-out. */
void arch_callout(uint32_t value)
{
	asm volatile("dsb ish\n\tstr %w0, [%1]" : : "r"(value), "r"((uint64_t)CALLOUT_ADDRESS) : "memory");
}

uint64_t arch_timestamp(void)
{
	uint64_t value;

	asm volatile("isb\n\tmrs %0, cntvct_el0" : "=r"(value) : : "memory");
	return value;
}

/* Taking an interrupt clears the exclusive monitor. */
uint64_t arch_xadd_local(uint64_t *counter)
{
	uint64_t old, sum;
	uint32_t lost;

	do {
		asm volatile("ldxr %0, %3\n\tadd %1, %0, #1\n\tstxr %w2, %1, %3"
			     : "=&r"(old), "=&r"(sum), "=&r"(lost), "+Q"(*counter) : : "memory");
	} while (lost);
	return old;
}

/* Plain forms, without write-back: KVM has to be told by the syndrome what an access to a device does. */
uint64_t arch_load(uint64_t address, uint32_t width)
{
	uint64_t value;

	switch (width) {
	case 1: asm volatile("ldrb %w0, [%1]" : "=r"(value) : "r"(address) : "memory"); break;
	case 2: asm volatile("ldrh %w0, [%1]" : "=r"(value) : "r"(address) : "memory"); break;
	case 4: asm volatile("ldr %w0, [%1]" : "=r"(value) : "r"(address) : "memory"); break;
	default: asm volatile("ldr %0, [%1]" : "=r"(value) : "r"(address) : "memory"); break;
	}
	return value;
}

void arch_store(uint64_t address, uint64_t value, uint32_t width)
{
	switch (width) {
	case 1: asm volatile("strb %w0, [%1]" : : "r"(value), "r"(address) : "memory"); break;
	case 2: asm volatile("strh %w0, [%1]" : : "r"(value), "r"(address) : "memory"); break;
	case 4: asm volatile("str %w0, [%1]" : : "r"(value), "r"(address) : "memory"); break;
	default: asm volatile("str %0, [%1]" : : "r"(value), "r"(address) : "memory"); break;
	}
	/* A device's answer to a store is an interrupt that must not come before it. */
	asm volatile("dsb ish" : : : "memory");
}

void arch_copy(uint64_t to, uint64_t from, uint64_t count, uint32_t width)
{
	for (; count; count--, to += width, from += width)
		arch_store(to, arch_load(from, width), width);
}

void arch_fill(uint64_t to, uint64_t value, uint64_t count, uint32_t width)
{
	for (; count; count--, to += width)
		arch_store(to, value, width);
}

/* FIQs, which group 0 interrupts are, go with IRQs. */
int arch_interrupts(int on)
{
	uint64_t daif;

	asm volatile("mrs %0, daif" : "=r"(daif) : : "memory");
	if (on)
		asm volatile("msr daifclr, #3\n\tisb" : : : "memory");
	else
		asm volatile("msr daifset, #3" : : : "memory");
	return !(daif & PSTATE_I);
}

/* A pending interrupt ends the wait although it is masked, so that none is lost between the two. */
void arch_wait(int interrupts)
{
	asm volatile("dsb ish\n\twfi" : : : "memory");
	if (interrupts) {
		asm volatile("msr daifclr, #3\n\tisb" : : : "memory");
		asm volatile("msr daifset, #3" : : : "memory");
	}
}

void arch_pause(void)
{
	asm volatile("yield" : : : "memory");
}

void arch_action(struct vcpu *vcpu, struct action *action)
{
	uint64_t value;

	switch (action->kind) {
	case ACTION_WRITE_SYSREG:
		gic_write((uint32_t)action->address, action->value);
		break;
	case ACTION_READ_SYSREG:
		if (gic_read((uint32_t)action->address, &value))
			guest_log(vcpu, RECORD_ACTION, value, action->address);
		break;
	}
}

#define RMW(type)											\
	do {												\
		volatile type *at = pointer(args[0]);							\
		type operand = (type)args[1], old = (type)args[2];					\
													\
		switch (FLAG_VARIANT(command->flags)) {							\
		case RMW_XCHG: command->result = __atomic_exchange_n(at, operand, __ATOMIC_SEQ_CST); break;	\
		case RMW_XADD: command->result = __atomic_fetch_add(at, operand, __ATOMIC_SEQ_CST); break;	\
		case RMW_CMPXCHG:									\
			command->result2 = __atomic_compare_exchange_n(at, &old, operand, 0, __ATOMIC_SEQ_CST,	\
								       __ATOMIC_SEQ_CST);		\
			command->result = old;								\
			break;										\
		case RMW_ADD: __atomic_fetch_add(at, operand, __ATOMIC_SEQ_CST); break;			\
		case RMW_OR: __atomic_fetch_or(at, operand, __ATOMIC_SEQ_CST); break;			\
		case RMW_AND: __atomic_fetch_and(at, operand, __ATOMIC_SEQ_CST); break;			\
		case RMW_XOR: __atomic_fetch_xor(at, operand, __ATOMIC_SEQ_CST); break;			\
		default: command->status = STATUS_UNSUPPORTED; break;					\
		}											\
	} while (0)

static void rmw(struct command *command)
{
	uint64_t *args = command->args;

	switch (FLAG_WIDTH(command->flags)) {
	case 1: RMW(uint8_t); break;
	case 2: RMW(uint16_t); break;
	case 4: RMW(uint32_t); break;
	default: RMW(uint64_t); break;
	}
}

void arch_command(struct vcpu *vcpu, struct command *command)
{
	uint64_t *args = command->args;

	(void)vcpu;
	switch (command->op) {
	case OP_RMW:
		rmw(command);
		break;
	case OP_READ_SYSREG:
		if (!gic_read((uint32_t)args[0], &command->result))
			command->status = STATUS_UNSUPPORTED;
		break;
	case OP_WRITE_SYSREG:
		if (!gic_write((uint32_t)args[0], args[1]))
			command->status = STATUS_UNSUPPORTED;
		break;
	case OP_GIC_ENABLE:
		command->result = gic_enable(args[0], args[1], args[2]);
		break;
	case OP_HVC: {
		register uint64_t x0 asm("x0") = args[0];
		register uint64_t x1 asm("x1") = args[1];
		register uint64_t x2 asm("x2") = args[2];
		register uint64_t x3 asm("x3") = args[3];

		asm volatile("hvc #0" : "+r"(x0), "+r"(x1), "+r"(x2), "+r"(x3) : : "x4", "x5", "x6", "x7", "x8", "x9", "x10", "x11",
			     "x12", "x13", "x14", "x15", "x16", "x17", "memory");
		command->result = x0;
		command->result2 = x1;
		break;
	}
	default:
		command->status = STATUS_UNSUPPORTED;
		break;
	}
}
