// SPDX-License-Identifier: MIT
/* The command interpreter and the interrupt log. */

#include "guest.h"

/*
 * A record is complete before the count that covers it is published, also when an NMI logs in the middle of another
 * record: only the outermost logger publishes.
 */
void guest_log(struct vcpu *vcpu, uint16_t kind, uint64_t value, uint64_t extra)
{
	volatile struct runtime *own = runtime(vcpu);
	volatile struct control *control = &vcpu->control;
	volatile struct record *record;
	uint64_t sequence, published;

	own->logging++;
	sequence = arch_xadd_local((uint64_t *)&own->reserved);
	record = &vcpu->log[(uint32_t)sequence % LOG_RECORDS];
	record->kind = kind;
	record->vcpu = (uint16_t)control->index;
	record->sequence = (uint32_t)sequence;
	record->value = value;
	record->extra = extra;
	record->timestamp = arch_timestamp();
	if (--own->logging)
		return;
	/* Only the low half is ever written, so no reader sees a torn count, whatever the word size. */
	do {
		published = own->reserved;
		__atomic_store_n((uint32_t *)&control->records, (uint32_t)published, __ATOMIC_RELEASE);
	} while (published != own->reserved);
}

static void run_action(struct vcpu *vcpu, struct action *action)
{
	switch (action->kind) {
	case ACTION_STORE:
		arch_store(action->address, action->value, action->width);
		break;
	case ACTION_LOAD:
		guest_log(vcpu, RECORD_ACTION, arch_load(action->address, action->width), action->address);
		break;
	case ACTION_ADD:
		arch_store(action->address, arch_load(action->address, action->width) + action->value, action->width);
		break;
	default:
		arch_action(vcpu, action);
		break;
	}
}

/* slot selects the policy and the counter; value is what the log says was taken, how is made of EXTRA_ bits. */
void guest_interrupt(struct vcpu *vcpu, uint16_t kind, uint32_t slot, uint64_t value, uint64_t how)
{
	struct runtime *own = runtime(vcpu);
	struct control *control = &vcpu->control;
	uint32_t policy = (uint32_t)control->policies[slot];
	uint32_t action = (policy >> POLICY_FIRST_ACTION) & 0xff;
	uint32_t actions = (policy >> POLICY_ACTION_COUNT) & 0xff;
	uint64_t where = own->running ? control->position : EXTRA_NO_COMMAND;
	int acknowledge = kind != RECORD_NMI && !(policy & POLICY_NO_EOI);

	own->depth++;
	((volatile uint32_t *)control->taken)[slot]++;
	if (!(policy & POLICY_NO_LOG))
		guest_log(vcpu, kind, value, where | (uint64_t)own->depth << EXTRA_DEPTH | how);
	if (acknowledge && (policy & POLICY_EOI_FIRST))
		arch_eoi(vcpu, value);
	if (policy & POLICY_NEST)
		arch_interrupts(1);
	for (; actions && action < ACTIONS; actions--, action++)
		run_action(vcpu, &control->actions[action]);
	if (policy & POLICY_NEST)
		arch_interrupts(0);
	if (acknowledge && !(policy & POLICY_EOI_FIRST))
		arch_eoi(vcpu, value);
	if (policy & POLICY_NOTIFY)
		arch_callout(CALLOUT_NOTIFY);
	own->depth--;
}

void guest_die(struct vcpu *vcpu, uint64_t vector, uint64_t error, uint64_t pc, uint64_t address)
{
	volatile struct control *control = &vcpu->control;

	control->death_vector = vector;
	control->death_error = error;
	control->death_pc = pc;
	control->death_address = address;
	control->state = STATE_DIED;
	for (;;)
		arch_callout(CALLOUT_DIED);
}

/* True when the running command expected this: the caller then abandons the command. Does not return otherwise. */
int guest_fault(struct vcpu *vcpu, uint32_t vector, uint64_t error, uint64_t pc, uint64_t address)
{
	struct runtime *own = runtime(vcpu);
	struct command *command = &vcpu->script[vcpu->control.position % SCRIPT_COMMANDS];

	if (own->depth || !own->running || vector > 31 || !(command->expect >> vector & 1))
		guest_die(vcpu, vector, error, pc, address);
	command->fault_vector = vector;
	command->fault_error = (uint32_t)error;
	command->fault_address = address;
	command->fault_pc = pc;
	guest_log(vcpu, RECORD_EXCEPTION, vector, error);
	return 1;
}

static uint64_t truncated(uint64_t value, uint32_t width)
{
	switch (width) {
	case 1: return (uint8_t)value;
	case 2: return (uint16_t)value;
	case 4: return (uint32_t)value;
	default: return value;
	}
}

static int holds(uint32_t condition, uint64_t seen, uint64_t value)
{
	switch (condition) {
	case CONDITION_EQUAL: return seen == value;
	case CONDITION_NOT_EQUAL: return seen != value;
	case CONDITION_AT_LEAST: return seen >= value;
	default: return seen < value;
	}
}

static void spin(struct command *command)
{
	uint32_t width = FLAG_WIDTH(command->flags);
	uint64_t left = command->args[3];
	int was = -1;

	if (command->flags & (SPIN_INTERRUPTS_ON | SPIN_INTERRUPTS_OFF))
		was = arch_interrupts(!!(command->flags & SPIN_INTERRUPTS_ON));
	for (;;) {
		command->result = arch_load(command->args[0], width);
		command->result2 = holds(FLAG_VARIANT(command->flags), command->result & command->args[1], command->args[2]);
		if (command->result2 || (command->args[3] && !--left))
			break;
		arch_pause();
	}
	if (was >= 0)
		arch_interrupts(was);
}

/* args[7] counts the jumps since the loop was last entered. */
static void loop(struct vcpu *vcpu, struct command *command)
{
	if (command->flags & LOOP_UNTIL_MEMORY) {
		command->result2 = holds(FLAG_VARIANT(command->flags),
					 arch_load(command->args[2], FLAG_WIDTH(command->flags)) & command->args[3],
					 command->args[4]);
		if (command->result2) {
			command->args[7] = 0;
			return;
		}
	}
	if (command->args[7] == command->args[1]) {
		command->args[7] = 0;
		return;
	}
	command->args[7]++;
	command->result++;
	runtime(vcpu)->next = (uint32_t)command->args[0];
}

static void halt(struct vcpu *vcpu, struct command *command)
{
	volatile struct control *control = &vcpu->control;
	int was = arch_interrupts(0), told = !!(command->flags & HALT_QUIET);
	uint64_t waits = 0;

	for (;;) {
		if (command->op == OP_HALT_ONCE) {
			if (waits)
				break;
		} else if (FLAG_VARIANT(command->flags) == HALT_UNTIL_TAKEN) {
			command->result = control->taken[(uint8_t)command->args[0]];
			if (command->result >= command->args[1])
				break;
		} else {
			command->result = control->records;
			if (command->result >= command->args[1])
				break;
		}
		if (!told)
			arch_callout(CALLOUT_HALTING);
		told = 1;
		arch_wait(!(command->flags & HALT_INTERRUPTS_OFF));
		waits++;
	}
	command->result2 = waits;
	arch_interrupts(was);
}

static void run_command(struct vcpu *vcpu, struct command *command)
{
	uint64_t *args = command->args;
	uint32_t width = FLAG_WIDTH(command->flags);

	switch (command->op) {
	case OP_NOP:
		break;
	case OP_LOAD:
		command->result = arch_load(args[0], width);
		break;
	case OP_STORE:
		arch_store(args[0], truncated(args[1], width), width);
		break;
	case OP_COPY:
		arch_copy(args[0], args[1], args[2], width);
		break;
	case OP_FILL:
		arch_fill(args[0], args[1], args[2], width);
		break;
	case OP_SPIN_UNTIL:
		spin(command);
		break;
	case OP_LOOP:
		loop(vcpu, command);
		break;
	case OP_CALLOUT:
		arch_callout(CALLOUT_ASK);
		break;
	case OP_NOTIFY:
		arch_callout(CALLOUT_NOTIFY);
		break;
	case OP_MARK:
		guest_log(vcpu, RECORD_MARK, args[0], args[1]);
		break;
	case OP_INTERRUPTS_ON:
		command->result = arch_interrupts(1);
		break;
	case OP_INTERRUPTS_OFF:
		command->result = arch_interrupts(0);
		break;
	case OP_HALT_UNTIL:
	case OP_HALT_ONCE:
		halt(vcpu, command);
		break;
	case OP_PAUSE:
		for (uint64_t n = args[0]; n; n--)
			arch_pause();
		break;
	case OP_TIMESTAMP:
		command->result = arch_timestamp();
		break;
	case OP_HANDLER:
		vcpu->control.policies[(uint8_t)args[0]] = args[1];
		break;
	case OP_ACTION:
		if (args[0] < ACTIONS)
			vcpu->control.actions[args[0]] = *(struct action *)&args[1];
		else
			command->status = STATUS_UNSUPPORTED;
		break;
	case OP_EOI:
		arch_eoi(vcpu, args[0]);
		break;
	default:
		arch_command(vcpu, command);
		break;
	}
}

static void run_script(struct vcpu *vcpu)
{
	volatile struct control *control = &vcpu->control;
	struct runtime *own = runtime(vcpu);
	uint32_t commands = control->commands < SCRIPT_COMMANDS ? control->commands : SCRIPT_COMMANDS;

	for (uint32_t i = 0; i < commands; i = own->next) {
		struct command *command = &vcpu->script[i];

		control->position = i;
		own->next = i + 1;
		command->status = STATUS_DONE;
		own->running = 1;
		if (arch_guard(vcpu, command, run_command))
			command->status = STATUS_FAULTED;
		own->running = 0;
		command->runs++;
		command->timestamp = arch_timestamp();
	}
	control->position = commands;
}

void guest_serve(struct vcpu *vcpu)
{
	volatile struct control *control = &vcpu->control;

	for (;;) {
		control->state = STATE_WAITING;
		arch_callout(CALLOUT_READY);
		control->state = STATE_RUNNING;
		run_script(vcpu);
	}
}
