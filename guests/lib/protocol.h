/* SPDX-License-Identifier: MIT */
/*
 * What a guest and the harness share in guest memory; the words are in guests/protocol.md. Plain numbers stand in
 * macros so that assembly and linker scripts read them too. Every structure has the same layout on all architectures.
 */
#ifndef CONFORMANCE_GUEST_PROTOCOL_H
#define CONFORMANCE_GUEST_PROTOCOL_H

#define GUEST_IMAGE_MAGIC	0x31474643	/* the bytes CFG1 */
#define GUEST_PROTOCOL_VERSION	1

/* vCPU area: aligned to its size, so any stack in it leads back to its start. */
#define AREA_SIZE		0x20000
#define AREA_CONTROL		0x00000
#define AREA_LOG		0x01000
#define AREA_PRIVATE		0x0d000
#define AREA_SCRIPT		0x10000

#define CONTROL_COUNTERS	0x040
#define CONTROL_POLICIES	0x100
#define CONTROL_TAKEN		0x900
#define CONTROL_ACTIONS		0xd00

#define COUNTERS		8
#define VECTORS			256
#define ACTIONS			24
#define LOG_RECORDS		1536
#define SCRIPT_COMMANDS		512

#define STATE_NOT_ENTERED	0
#define STATE_WAITING		1
#define STATE_RUNNING		2
#define STATE_DIED		3

#define CALLOUT_READY		1
#define CALLOUT_NOTIFY		2
#define CALLOUT_DIED		3
#define CALLOUT_ASK		4
#define CALLOUT_HALTING		5

#define CALLOUT_PORT		0x0cf0		/* x86 */
#define CALLOUT_ADDRESS		0x0b000000	/* arm64 */

#define RECORD_INTERRUPT	1
#define RECORD_EVENT_CHANNEL	2
#define RECORD_EXCEPTION	3
#define RECORD_NMI		4
#define RECORD_MARK		5
#define RECORD_ACTION		6
#define RECORD_UPCALL		7
#define RECORD_FIQ		8		/* arm64 */

/* extra of an interrupt or NMI: low half the position */
#define EXTRA_NO_COMMAND	0xffffffff
#define EXTRA_DEPTH		32		/* shift, 8 bits */
#define EXTRA_USER		(1ull << 40)
#define EXTRA_BEFORE_HALT	(1ull << 41)

#define STATUS_NOT_RUN		0
#define STATUS_DONE		1
#define STATUS_FAULTED		2
#define STATUS_UNSUPPORTED	3

/* Commands every guest knows. */
#define OP_NOP			0
#define OP_LOAD			1
#define OP_STORE		2
#define OP_COPY			3
#define OP_FILL			4
#define OP_RMW			5
#define OP_SPIN_UNTIL		6
#define OP_LOOP			7
#define OP_CALLOUT		8
#define OP_NOTIFY		9
#define OP_MARK			10
#define OP_INTERRUPTS_ON	11
#define OP_INTERRUPTS_OFF	12
#define OP_HALT_UNTIL		13
#define OP_HALT_ONCE		14
#define OP_PAUSE		15
#define OP_TIMESTAMP		16
#define OP_HANDLER		17
#define OP_ACTION		18
#define OP_EOI			19
/* x86 */
#define OP_RDMSR		64
#define OP_WRMSR		65
#define OP_IN			66
#define OP_OUT			67
#define OP_INS			68
#define OP_OUTS			69
#define OP_HYPERCALL		70
#define OP_CPUID		71
#define OP_READ_CR		72
#define OP_WRITE_CR		73
#define OP_FLUSH_TLB		74
#define OP_INVLPG		75
#define OP_APIC_ENABLE		76
#define OP_APIC_READ		77
#define OP_APIC_WRITE		78
#define OP_IPI			79
#define OP_INT			80
#define OP_XEN_UPCALL		81
/* arm64 */
#define OP_READ_SYSREG		128
#define OP_WRITE_SYSREG		129
#define OP_GIC_ENABLE		130
#define OP_HVC			131

/* Command flags: low nibble the access width in bytes, second nibble a variant, high byte options. */
#define FLAG_WIDTH(flags)	((flags) & 0xf)
#define FLAG_VARIANT(flags)	(((flags) >> 4) & 0xf)

#define CONDITION_EQUAL		0
#define CONDITION_NOT_EQUAL	1
#define CONDITION_AT_LEAST	2
#define CONDITION_LESS		3

#define SPIN_INTERRUPTS_ON	0x0100
#define SPIN_INTERRUPTS_OFF	0x0200
#define LOOP_UNTIL_MEMORY	0x0100

#define HALT_UNTIL_RECORDS	0		/* variants of HALT_UNTIL */
#define HALT_UNTIL_TAKEN	1
#define HALT_QUIET		0x0100
#define HALT_INTERRUPTS_OFF	0x0200

#define RMW_XCHG		0
#define RMW_XADD		1
#define RMW_CMPXCHG		2
#define RMW_ADD			3
#define RMW_OR			4
#define RMW_AND			5
#define RMW_XOR			6
#define RMW_BTS			7
#define RMW_BTR			8
#define RMW_BTC			9

#define HYPERCALL_CPL3		0x0001
#define HYPERCALL_32BIT		0x0002
#define HYPERCALL_VMCALL	0		/* variants */
#define HYPERCALL_VMMCALL	1
#define HYPERCALL_PAGE		2
#define HYPERCALL_KVM_ABI	0x0100

#define APIC_ENABLE_X2APIC	0x0100

/* arm64 exceptions, as a command may expect them and a death names them */
#define EXCEPTION_UNDEFINED		0
#define EXCEPTION_DATA_ABORT		1
#define EXCEPTION_INSTRUCTION_ABORT	2
#define EXCEPTION_SYSTEM_REGISTER	3
#define EXCEPTION_ALIGNMENT		4
#define EXCEPTION_OTHER			31

/* Handler policy: 0 logs, acknowledges and is silent. */
#define POLICY_NO_LOG		0x0001
#define POLICY_NO_EOI		0x0002
#define POLICY_EOI_FIRST	0x0004
#define POLICY_NOTIFY		0x0008
#define POLICY_NEST		0x0010
#define POLICY_RETURN_MASKED	0x0020
#define POLICY_INTERRUPT	0x0040
#define POLICY_NO_SETTLE	0x0080
#define POLICY_FIRST_ACTION	16		/* shift, 8 bits */
#define POLICY_ACTION_COUNT	24		/* shift, 8 bits */

#define ACTION_STORE		1
#define ACTION_LOAD		2
#define ACTION_ADD		3
#define ACTION_OUT		4
#define ACTION_IN		5
#define ACTION_WRMSR		6
#define ACTION_XEN_UPCALL	7
#define ACTION_WRITE_SYSREG	8		/* arm64 */
#define ACTION_READ_SYSREG	9

#define XEN_32BIT		0x0001
#define XEN_KEEP_UPCALL		0x0002
#define XEN_KEEP_SELECTOR	0x0004
#define XEN_KEEP_PENDING	0x0008
#define XEN_MASK_PORTS		0x0010

#ifndef __ASSEMBLER__

#include <stddef.h>
#include <stdint.h>

struct image_header {
	uint32_t magic;
	uint32_t version;
	uint32_t machine;		/* ELF e_machine */
	uint32_t area_size;
	uint64_t load;
	uint64_t entry;
	uint64_t page_tables;		/* 0: none in the image */
	uint64_t end;
};

struct action {
	uint8_t kind;
	uint8_t width;
	uint16_t flags;
	uint32_t reserved;
	uint64_t address;
	uint64_t value;
	uint64_t extra;
};

struct control {
	uint32_t state;
	uint32_t commands;
	uint32_t position;
	uint32_t index;
	uint64_t records;
	uint64_t death_vector;
	uint64_t death_error;
	uint64_t death_pc;
	uint64_t death_address;
	uint32_t repeated;
	uint32_t reserved;
	uint64_t counters[COUNTERS];
	uint8_t reserved2[0x80];
	uint64_t policies[VECTORS];
	uint32_t taken[VECTORS];
	struct action actions[ACTIONS];
};

struct record {
	uint16_t kind;
	uint16_t vcpu;
	uint32_t sequence;
	uint64_t value;
	uint64_t extra;
	uint64_t timestamp;
};

struct command {
	uint16_t op;
	uint16_t flags;
	uint32_t expect;		/* bit n: exception n may end this command */
	uint32_t status;
	uint32_t runs;
	uint64_t args[8];
	uint64_t result;
	uint64_t result2;
	uint32_t fault_vector;
	uint32_t fault_error;
	uint64_t fault_address;
	uint64_t fault_pc;
	uint64_t timestamp;		/* when it last ended */
};

_Static_assert(sizeof(struct image_header) == 48, "image header");
_Static_assert(sizeof(struct action) == 32, "action");
_Static_assert(sizeof(struct record) == 32, "record");
_Static_assert(sizeof(struct command) == 128, "command");
_Static_assert(sizeof(struct control) == 0x1000, "control page");
_Static_assert(offsetof(struct control, counters) == CONTROL_COUNTERS, "counters");
_Static_assert(offsetof(struct control, policies) == CONTROL_POLICIES, "policies");
_Static_assert(offsetof(struct control, taken) == CONTROL_TAKEN, "taken");
_Static_assert(offsetof(struct control, actions) == CONTROL_ACTIONS, "actions");
_Static_assert(AREA_LOG + LOG_RECORDS * sizeof(struct record) == AREA_PRIVATE, "log");
_Static_assert(AREA_SCRIPT + SCRIPT_COMMANDS * sizeof(struct command) == AREA_SIZE, "script");

#endif
#endif
