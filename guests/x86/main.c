// SPDX-License-Identifier: MIT
/* Start of a vCPU, traps, and the commands only x86 has. */

#include "x86.h"

#define FLAG_IF		0x200

#define VECTOR_NMI		2
#define VECTOR_BREAKPOINT	3
#define VECTOR_PAGE_FAULT	14

#define MSR_APIC_BASE	0x1b
#define APIC_EOI	0x0b0

#define SEGMENT_CODE64_KERNEL	0x00af9b000000ffff
#define SEGMENT_CODE32_KERNEL	0x00cf9b000000ffff
#define SEGMENT_DATA_KERNEL	0x00cf93000000ffff
#define SEGMENT_CODE64_USER	0x00affb000000ffff
#define SEGMENT_CODE32_USER	0x00cffb000000ffff
#define SEGMENT_DATA_USER	0x00cff3000000ffff
#define SEGMENT_TSS		0x0000890000000000

struct table_register {
	uint16_t limit;
	uintptr_t base;
} __attribute__((packed));

static void set_tables(struct vcpu *vcpu)
{
	uint8_t *area = (uint8_t *)vcpu;
	volatile uint64_t *gdt = (uint64_t *)(area + AREA_GDT);
	volatile uint32_t *tss = (uint32_t *)(area + AREA_TSS);
	uint64_t base = (uintptr_t)tss;
	struct table_register gdtr = { GDT_LIMIT, (uintptr_t)gdt };
	struct table_register idtr = { sizeof(uintptr_t) == 8 ? 0xfff : 0x7ff, LAYOUT_IDT };

	for (uint32_t n = 0; n <= TSS_LIMIT / 4; n++)
		tss[n] = 0;
	/* The I/O bitmap lies beyond the limit: CPL3 has no ports but by IOPL. */
	tss[0x64 / 4] = (TSS_LIMIT + 1) << 16;
#ifdef __x86_64__
	gdt[SEL_KERNEL_CODE / 8] = SEGMENT_CODE64_KERNEL;
	gdt[SEL_USER_CODE64 / 8] = SEGMENT_CODE64_USER;
	tss[0x24 / 4] = (uint32_t)(uintptr_t)(area + AREA_NMI_STACK_END);
	tss[0x2c / 4] = (uint32_t)(uintptr_t)(area + AREA_FAULT_STACK_END);
#else
	gdt[SEL_KERNEL_CODE / 8] = SEGMENT_CODE32_KERNEL;
	gdt[SEL_USER_CODE64 / 8] = 0;
	tss[0x08 / 4] = SEL_KERNEL_DATA;
#endif
	gdt[0] = 0;
	gdt[SEL_KERNEL_DATA / 8] = SEGMENT_DATA_KERNEL;
	gdt[SEL_KERNEL_CODE32 / 8] = SEGMENT_CODE32_KERNEL;
	gdt[SEL_USER_CODE32 / 8] = SEGMENT_CODE32_USER;
	gdt[SEL_USER_DATA / 8] = SEGMENT_DATA_USER;
	gdt[SEL_TSS / 8] = SEGMENT_TSS | TSS_LIMIT | (base & 0xffffff) << 16 | (base >> 24 & 0xff) << 56;
	gdt[SEL_TSS / 8 + 1] = base >> 32;
	asm volatile("lgdt %0" : : "m"(gdtr) : "memory");
	asm volatile("lidt %0" : : "m"(idtr) : "memory");
#ifdef __x86_64__
	asm volatile("pushq %0\n\tlea 1f(%%rip), %%rax\n\tpush %%rax\n\tlretq\n1:" : : "i"(SEL_KERNEL_CODE) : "rax", "memory");
#else
	asm volatile("ljmpl %0, $1f\n1:" : : "i"(SEL_KERNEL_CODE) : "memory");
#endif
	asm volatile("mov %0, %%ss\n\tmov %0, %%ds\n\tmov %0, %%es" : : "r"(SEL_KERNEL_DATA) : "memory");
	asm volatile("ltr %w0" : : "r"(SEL_TSS) : "memory");
}

void x86_boot(struct vcpu *vcpu, uintptr_t index)
{
	uint8_t *private = vcpu->private;

	for (uint32_t n = 0; n < AREA_NMI_STACK_END - AREA_PRIVATE; n++)
		((volatile uint8_t *)private)[n] = 0;
	set_tables(vcpu);
	vcpu->control.index = (uint32_t)index;
	apic_learn(cpu_of(vcpu));
	guest_serve(vcpu);
}

static struct vcpu *own_area(const void *stack)
{
	return pointer((uintptr_t)stack & ~(uintptr_t)(AREA_SIZE - 1));
}

static uint64_t fault_address(uint64_t vector)
{
	uintptr_t address = 0;

	if (vector == VECTOR_PAGE_FAULT)
		asm volatile("mov %%cr2, %0" : "=r"(address));
	return address;
}

static void back_from_cpl3(struct cpu *cpu, struct frame *frame)
{
	struct registers *registers = pointer(cpu->registers);

	registers->ax = frame->ax;
	registers->bx = frame->bx;
	registers->cx = frame->cx;
	registers->dx = frame->dx;
	registers->si = frame->si;
	registers->di = frame->di;
	registers->bp = frame->bp;
#ifdef __x86_64__
	registers->r8 = frame->r8;
	registers->r9 = frame->r9;
	registers->r10 = frame->r10;
#endif
	x86_resume((uintptr_t)cpu->user_sp, (frame->flags & FLAG_IF) | 2, 0);
}

/*
 * Leaves once for the hypervisor before interrupts can be on again, so that a second delivery of the same interrupt comes
 * while they are off and is known for what it is. An acknowledgement in the handler does as well.
 */
static void settle(uint32_t policy)
{
	uint32_t a = 0, b, c = 0, d;

	if (policy & POLICY_NO_SETTLE || (!(policy & POLICY_NO_EOI) && (policy & POLICY_EOI_FIRST || !(policy & POLICY_NEST))))
		return;
	asm volatile("cpuid" : "+a"(a), "=b"(b), "+c"(c), "=d"(d));
}

void x86_trap(struct frame *frame)
{
	struct vcpu *vcpu = own_area(frame);
	struct cpu *cpu = cpu_of(vcpu);
	uint32_t vector = (uint8_t)frame->vector;
	int user = frame->cs & 3;
	uint32_t policy = (uint32_t)vcpu->control.policies[vector];
	int interrupt = vector > 31 || (vector > 15 && policy & POLICY_INTERRUPT);
	uint64_t how = user ? EXTRA_USER : 0;

	/*
	 * No processor takes an interrupt while they are off, but a machine may deliver the same one twice over: QEMU's SVM
	 * does, when it is kicked between a VMRUN with EVENTINJ and the next exit. An int n command is no such thing.
	 */
	if (interrupt && !(frame->flags & FLAG_IF) && frame->ip != LAYOUT_INT_TABLE + vector * 4 + 2) {
		vcpu->control.repeated++;
		return;
	}
	if (interrupt || vector == VECTOR_NMI) {
		/*
		 * sti holds interrupts back for one instruction, but not NMIs, and not where the machine beneath loses the
		 * shadow on an exit (QEMU's SVM does): going on to the halt would then sleep through what it waits for.
		 */
		if (frame->ip == (uintptr_t)x86_halt || frame->ip == (uintptr_t)x86_halt_off) {
			frame->ip++;
			how |= EXTRA_BEFORE_HALT;
		}
		if (interrupt)
			settle(policy);
		guest_interrupt(vcpu, vector == VECTOR_NMI ? RECORD_NMI : RECORD_INTERRUPT, vector, vector, how);
		if (policy & POLICY_RETURN_MASKED)
			frame->flags &= ~(uint32_t)FLAG_IF;
		return;
	}
	if (vector == VECTOR_BREAKPOINT && user)
		back_from_cpl3(cpu, frame);
	if (guest_fault(vcpu, vector, frame->error, frame->ip, fault_address(vector)))
		x86_resume((uintptr_t)cpu->recover_sp, (frame->flags & FLAG_IF) | 2, 1);
}

int arch_guard(struct vcpu *vcpu, struct command *command, void (*run)(struct vcpu *, struct command *))
{
	return x86_guard(vcpu, command, run, cpu_of(vcpu));
}

void arch_callout(uint32_t value)
{
	asm volatile("outl %0, %w1" : : "a"(value), "d"(CALLOUT_PORT) : "memory");
}

uint64_t arch_timestamp(void)
{
	uint32_t low, high;

	asm volatile("rdtsc" : "=a"(low), "=d"(high) : : "memory");
	return low | (uint64_t)high << 32;
}

/* One instruction is enough: only this vCPU's own interrupts compete for the counter. */
uint64_t arch_xadd_local(uint64_t *counter)
{
	uintptr_t one = 1;

	asm volatile("xadd %0, %1" : "+r"(one), "+m"(*(uintptr_t *)counter) : : "memory", "cc");
	return one;
}

uint64_t arch_load(uint64_t address, uint32_t width)
{
	uint64_t value = 0;

	switch (width) {
	case 1: {
		uint8_t byte;
		asm volatile("movb %1, %0" : "=q"(byte) : "m"(*(volatile uint8_t *)pointer(address)) : "memory");
		value = byte;
		break;
	}
	case 2: {
		uint16_t word;
		asm volatile("movw %1, %0" : "=r"(word) : "m"(*(volatile uint16_t *)pointer(address)) : "memory");
		value = word;
		break;
	}
	case 4: {
		uint32_t word;
		asm volatile("movl %1, %0" : "=r"(word) : "m"(*(volatile uint32_t *)pointer(address)) : "memory");
		value = word;
		break;
	}
	default:
#ifdef __x86_64__
		asm volatile("movq %1, %0" : "=r"(value) : "m"(*(volatile uint64_t *)pointer(address)) : "memory");
#else
		value = arch_load(address, 4) | arch_load(address + 4, 4) << 32;
#endif
		break;
	}
	return value;
}

void arch_store(uint64_t address, uint64_t value, uint32_t width)
{
	switch (width) {
	case 1:
		asm volatile("movb %1, %0" : "=m"(*(volatile uint8_t *)pointer(address)) : "q"((uint8_t)value) : "memory");
		break;
	case 2:
		asm volatile("movw %1, %0" : "=m"(*(volatile uint16_t *)pointer(address)) : "r"((uint16_t)value) : "memory");
		break;
	case 4:
		asm volatile("movl %1, %0" : "=m"(*(volatile uint32_t *)pointer(address)) : "r"((uint32_t)value) : "memory");
		break;
	default:
#ifdef __x86_64__
		asm volatile("movq %1, %0" : "=m"(*(volatile uint64_t *)pointer(address)) : "r"(value) : "memory");
#else
		arch_store(address, (uint32_t)value, 4);
		arch_store(address + 4, value >> 32, 4);
#endif
		break;
	}
}

#ifdef __x86_64__
#define STRING(mnemonic, width, ...)						\
	switch (width) {							\
	case 1: asm volatile("rep " mnemonic "b" __VA_ARGS__); break;		\
	case 2: asm volatile("rep " mnemonic "w" __VA_ARGS__); break;		\
	case 4: asm volatile("rep " mnemonic "l" __VA_ARGS__); break;		\
	default: asm volatile("rep " mnemonic "q" __VA_ARGS__); break;		\
	}
#else
#define STRING(mnemonic, width, ...)						\
	switch (width) {							\
	case 1: asm volatile("rep " mnemonic "b" __VA_ARGS__); break;		\
	case 2: asm volatile("rep " mnemonic "w" __VA_ARGS__); break;		\
	default: asm volatile("rep " mnemonic "l" __VA_ARGS__); break;		\
	}
#endif

void arch_copy(uint64_t to, uint64_t from, uint64_t count, uint32_t width)
{
	uintptr_t di = (uintptr_t)to, si = (uintptr_t)from, cx = (uintptr_t)count;

	STRING("movs", width, : "+D"(di), "+S"(si), "+c"(cx) : : "memory");
}

void arch_fill(uint64_t to, uint64_t value, uint64_t count, uint32_t width)
{
	uintptr_t di = (uintptr_t)to, cx = (uintptr_t)count, ax = (uintptr_t)value;

	STRING("stos", width, : "+D"(di), "+c"(cx) : "a"(ax) : "memory");
}

int arch_interrupts(int on)
{
	uintptr_t flags;

	asm volatile("pushf\n\tpop %0" : "=r"(flags) : : "memory");
	if (on)
		asm volatile("sti" : : : "memory");
	else
		asm volatile("cli" : : : "memory");
	return !!(flags & FLAG_IF);
}

void arch_wait(int interrupts)
{
	if (interrupts)
		x86_wait();
	else
		x86_wait_off();
}

void arch_pause(void)
{
	asm volatile("pause" : : : "memory");
}

void arch_eoi(struct vcpu *vcpu, uint64_t value)
{
	(void)value;
	apic_write(cpu_of(vcpu), APIC_EOI, 0);
}

static uint32_t in(uint16_t port, uint32_t width)
{
	uint32_t value = 0;

	switch (width) {
	case 1: asm volatile("inb %w1, %b0" : "+a"(value) : "d"(port) : "memory"); break;
	case 2: asm volatile("inw %w1, %w0" : "+a"(value) : "d"(port) : "memory"); break;
	default: asm volatile("inl %w1, %0" : "+a"(value) : "d"(port) : "memory"); break;
	}
	return value;
}

static void out(uint16_t port, uint32_t value, uint32_t width)
{
	switch (width) {
	case 1: asm volatile("outb %b0, %w1" : : "a"(value), "d"(port) : "memory"); break;
	case 2: asm volatile("outw %w0, %w1" : : "a"(value), "d"(port) : "memory"); break;
	default: asm volatile("outl %0, %w1" : : "a"(value), "d"(port) : "memory"); break;
	}
}

static void write_msr(struct vcpu *vcpu, uint32_t msr, uint64_t value)
{
	wrmsr(msr, value);
	if (msr == MSR_APIC_BASE)
		apic_wrote_base(cpu_of(vcpu), value);
}

void arch_action(struct vcpu *vcpu, struct action *action)
{
	switch (action->kind) {
	case ACTION_OUT:
		out((uint16_t)action->address, (uint32_t)action->value, action->width);
		break;
	case ACTION_IN:
		guest_log(vcpu, RECORD_ACTION, in((uint16_t)action->address, action->width), action->address);
		break;
	case ACTION_WRMSR:
		write_msr(vcpu, (uint32_t)action->address, action->value);
		break;
	case ACTION_XEN_UPCALL:
		xen_upcall(vcpu, action->address, action->value, action->extra, action->flags);
		break;
	}
}

#define RMW_AT(type) (*(volatile type *)pointer(args[0]))

/* result: the old value (xchg, xadd, cmpxchg), the carry flag (bit operations) or the flags (the others) */
#define RMW(type, suffix, constraint)									\
	do {												\
		type operand = (type)args[1], old = (type)args[2];					\
		uintptr_t flags = 0;									\
		uint8_t carry = 0;									\
													\
		switch (FLAG_VARIANT(command->flags)) {							\
		case RMW_XCHG:										\
			asm volatile("xchg" suffix " %0, %1"						\
				     : "+" constraint(operand), "+m"(RMW_AT(type)) : : "memory");	\
			command->result = operand;							\
			return;										\
		case RMW_XADD:										\
			asm volatile("lock xadd" suffix " %0, %1"					\
				     : "+" constraint(operand), "+m"(RMW_AT(type)) : : "memory", "cc");	\
			command->result = operand;							\
			return;										\
		case RMW_CMPXCHG:									\
			asm volatile("lock cmpxchg" suffix " %3, %1\n\tsetz %2"				\
				     : "+a"(old), "+m"(RMW_AT(type)), "=q"(carry)			\
				     : constraint(operand) : "memory", "cc");				\
			command->result = old;								\
			command->result2 = carry;							\
			return;										\
		case RMW_ADD:										\
			asm volatile("lock add" suffix " %2, %0\n\tpushf\n\tpop %1"			\
				     : "+m"(RMW_AT(type)), "=r"(flags)					\
				     : constraint(operand) : "memory", "cc");				\
			break;										\
		case RMW_OR:										\
			asm volatile("lock or" suffix " %2, %0\n\tpushf\n\tpop %1"			\
				     : "+m"(RMW_AT(type)), "=r"(flags)					\
				     : constraint(operand) : "memory", "cc");				\
			break;										\
		case RMW_AND:										\
			asm volatile("lock and" suffix " %2, %0\n\tpushf\n\tpop %1"			\
				     : "+m"(RMW_AT(type)), "=r"(flags)					\
				     : constraint(operand) : "memory", "cc");				\
			break;										\
		case RMW_XOR:										\
			asm volatile("lock xor" suffix " %2, %0\n\tpushf\n\tpop %1"			\
				     : "+m"(RMW_AT(type)), "=r"(flags)					\
				     : constraint(operand) : "memory", "cc");				\
			break;										\
		default:										\
			command->status = STATUS_UNSUPPORTED;						\
			return;										\
		}											\
		command->result = flags;								\
	} while (0)

#define RMW_BIT(type, suffix)										\
	do {												\
		type bit = (type)args[1];								\
		uint8_t carry;										\
													\
		switch (FLAG_VARIANT(command->flags)) {							\
		case RMW_BTS:										\
			asm volatile("lock bts" suffix " %2, %0\n\tsetc %1"				\
				     : "+m"(RMW_AT(type)), "=q"(carry) : "r"(bit) : "memory", "cc");	\
			break;										\
		case RMW_BTR:										\
			asm volatile("lock btr" suffix " %2, %0\n\tsetc %1"				\
				     : "+m"(RMW_AT(type)), "=q"(carry) : "r"(bit) : "memory", "cc");	\
			break;										\
		default:										\
			asm volatile("lock btc" suffix " %2, %0\n\tsetc %1"				\
				     : "+m"(RMW_AT(type)), "=q"(carry) : "r"(bit) : "memory", "cc");	\
			break;										\
		}											\
		command->result = carry;								\
	} while (0)

static void rmw(struct command *command)
{
	uint64_t *args = command->args;
	uint32_t width = FLAG_WIDTH(command->flags), variant = FLAG_VARIANT(command->flags);

	if (variant >= RMW_BTS && variant <= RMW_BTC) {
		/* there is no byte form */
		if (width == 2)
			RMW_BIT(uint16_t, "w");
		else if (width == 4)
			RMW_BIT(uint32_t, "l");
#ifdef __x86_64__
		else if (width == 8)
			RMW_BIT(uint64_t, "q");
#endif
		else
			command->status = STATUS_UNSUPPORTED;
		return;
	}
	if (width == 1)
		RMW(uint8_t, "b", "q");
	else if (width == 2)
		RMW(uint16_t, "w", "r");
	else if (width == 4)
		RMW(uint32_t, "l", "r");
#ifdef __x86_64__
	else if (width == 8)
		RMW(uint64_t, "q", "r");
#endif
	else
		command->status = STATUS_UNSUPPORTED;
}

/* result: rax as the hypercall left it; result2: bit n set when register n of struct registers is not what was passed */
static void hypercall(struct vcpu *vcpu, struct command *command)
{
	uint64_t *args = command->args;
	uint32_t mode = command->flags & (HYPERCALL_CPL3 | HYPERCALL_32BIT);
	struct registers passed = { .ax = args[0] }, registers;
	struct cpu *cpu = cpu_of(vcpu);
	uintptr_t target;

	if (command->flags & HYPERCALL_KVM_ABI) {
		passed.bx = args[1];
		passed.cx = args[2];
		passed.dx = args[3];
		passed.si = args[4];
	} else if (mode & HYPERCALL_32BIT) {
		passed.bx = args[1];
		passed.cx = args[2];
		passed.dx = args[3];
		passed.si = args[4];
		passed.di = args[5];
		passed.bp = args[6];
	} else {
		passed.di = args[1];
		passed.si = args[2];
		passed.dx = args[3];
		passed.r10 = args[4];
		passed.r8 = args[5];
		passed.r9 = args[6];
	}
	switch (FLAG_VARIANT(command->flags)) {
	case HYPERCALL_VMCALL:
		target = LAYOUT_VMCALL;
		break;
	case HYPERCALL_VMMCALL:
		target = LAYOUT_VMMCALL;
		break;
	default:
		target = (uintptr_t)(args[7] + args[0] * 32);
		break;
	}
#ifndef __x86_64__
	if (!(mode & HYPERCALL_32BIT)) {
		command->status = STATUS_UNSUPPORTED;
		return;
	}
#endif
	registers = passed;
	cpu->registers = (uintptr_t)&registers;
	x86_hypercall(&registers, target, mode, cpu);
	asm volatile("" : : : "memory");
	command->result = registers.ax;
	command->result2 = 0;
	/* Code of 32 bits has no say over the upper halves. */
	for (uint32_t n = 1; n < sizeof(registers) / 8; n++)
		if ((((uint64_t *)&registers)[n] ^ ((uint64_t *)&passed)[n]) & (mode & HYPERCALL_32BIT ? UINT32_MAX : UINT64_MAX))
			command->result2 |= 1 << n;
}

static uint64_t read_cr(uint64_t number, struct command *command)
{
	uintptr_t value = 0;

	switch (number) {
	case 0: asm volatile("mov %%cr0, %0" : "=r"(value) : : "memory"); break;
	case 2: asm volatile("mov %%cr2, %0" : "=r"(value) : : "memory"); break;
	case 3: asm volatile("mov %%cr3, %0" : "=r"(value) : : "memory"); break;
	case 4: asm volatile("mov %%cr4, %0" : "=r"(value) : : "memory"); break;
#ifdef __x86_64__
	case 8: asm volatile("mov %%cr8, %0" : "=r"(value) : : "memory"); break;
#endif
	default: command->status = STATUS_UNSUPPORTED; break;
	}
	return value;
}

static void write_cr(uint64_t number, uintptr_t value, struct command *command)
{
	switch (number) {
	case 0: asm volatile("mov %0, %%cr0" : : "r"(value) : "memory"); break;
	case 2: asm volatile("mov %0, %%cr2" : : "r"(value) : "memory"); break;
	case 3: asm volatile("mov %0, %%cr3" : : "r"(value) : "memory"); break;
	case 4: asm volatile("mov %0, %%cr4" : : "r"(value) : "memory"); break;
#ifdef __x86_64__
	case 8: asm volatile("mov %0, %%cr8" : : "r"(value) : "memory"); break;
#endif
	default: command->status = STATUS_UNSUPPORTED; break;
	}
}

static void string_io(struct command *command)
{
	uint16_t port = (uint16_t)command->args[0];
	uintptr_t buffer = (uintptr_t)command->args[1], count = (uintptr_t)command->args[2];
	uint32_t width = FLAG_WIDTH(command->flags);

	if (command->op == OP_INS) {
		switch (width) {
		case 1: asm volatile("rep insb" : "+D"(buffer), "+c"(count) : "d"(port) : "memory"); break;
		case 2: asm volatile("rep insw" : "+D"(buffer), "+c"(count) : "d"(port) : "memory"); break;
		default: asm volatile("rep insl" : "+D"(buffer), "+c"(count) : "d"(port) : "memory"); break;
		}
	} else {
		switch (width) {
		case 1: asm volatile("rep outsb" : "+S"(buffer), "+c"(count) : "d"(port) : "memory"); break;
		case 2: asm volatile("rep outsw" : "+S"(buffer), "+c"(count) : "d"(port) : "memory"); break;
		default: asm volatile("rep outsl" : "+S"(buffer), "+c"(count) : "d"(port) : "memory"); break;
		}
	}
}

void arch_command(struct vcpu *vcpu, struct command *command)
{
	uint64_t *args = command->args;
	uint32_t width = FLAG_WIDTH(command->flags);
	struct cpu *cpu = cpu_of(vcpu);

	switch (command->op) {
	case OP_RMW:
		rmw(command);
		break;
	case OP_RDMSR:
		command->result = rdmsr((uint32_t)args[0]);
		break;
	case OP_WRMSR:
		write_msr(vcpu, (uint32_t)args[0], args[1]);
		break;
	case OP_IN:
		command->result = in((uint16_t)args[0], width);
		break;
	case OP_OUT:
		out((uint16_t)args[0], (uint32_t)args[1], width);
		break;
	case OP_INS:
	case OP_OUTS:
		string_io(command);
		break;
	case OP_HYPERCALL:
		hypercall(vcpu, command);
		break;
	case OP_CPUID: {
		uint32_t a = (uint32_t)args[0], b, c = (uint32_t)args[1], d;

		asm volatile("cpuid" : "+a"(a), "=b"(b), "+c"(c), "=d"(d));
		command->result = a | (uint64_t)b << 32;
		command->result2 = c | (uint64_t)d << 32;
		break;
	}
	case OP_READ_CR:
		command->result = read_cr(args[0], command);
		break;
	case OP_WRITE_CR:
		write_cr(args[0], (uintptr_t)args[1], command);
		break;
	case OP_FLUSH_TLB:
		write_cr(3, (uintptr_t)read_cr(3, command), command);
		break;
	case OP_INVLPG:
		asm volatile("invlpg %0" : : "m"(*(uint8_t *)pointer(args[0])) : "memory");
		break;
	case OP_APIC_ENABLE:
		command->result = apic_enable(cpu, (uint32_t)args[0], !!(command->flags & APIC_ENABLE_X2APIC));
		break;
	case OP_APIC_READ:
		command->result = apic_read(cpu, (uint32_t)args[0]);
		break;
	case OP_APIC_WRITE:
		apic_write(cpu, (uint32_t)args[0], args[1]);
		break;
	case OP_IPI:
		apic_ipi(cpu, (uint32_t)args[0], (uint32_t)args[1]);
		break;
	case OP_INT:
		((void (*)(void))(uintptr_t)(LAYOUT_INT_TABLE + 4 * (uint8_t)args[0]))();
		break;
	case OP_XEN_UPCALL:
		xen_upcall(vcpu, args[0], args[1], args[2], command->flags);
		break;
	default:
		command->status = STATUS_UNSUPPORTED;
		break;
	}
}
