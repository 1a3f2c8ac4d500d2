// SPDX-License-Identifier: MIT
/* The GIC's CPU interface. Distributor, redistributors and ITS are memory, which LOAD and STORE reach. */

#include "arm64.h"

#define ICC_PMR_EL1	S3_0_C4_C6_0
#define ICC_IAR0_EL1	S3_0_C12_C8_0
#define ICC_EOIR0_EL1	S3_0_C12_C8_1
#define ICC_HPPIR0_EL1	S3_0_C12_C8_2
#define ICC_BPR0_EL1	S3_0_C12_C8_3
#define ICC_AP0R0_EL1	S3_0_C12_C8_4
#define ICC_AP1R0_EL1	S3_0_C12_C9_0
#define ICC_DIR_EL1	S3_0_C12_C11_1
#define ICC_RPR_EL1	S3_0_C12_C11_3
#define ICC_SGI1R_EL1	S3_0_C12_C11_5
#define ICC_ASGI1R_EL1	S3_0_C12_C11_6
#define ICC_SGI0R_EL1	S3_0_C12_C11_7
#define ICC_IAR1_EL1	S3_0_C12_C12_0
#define ICC_EOIR1_EL1	S3_0_C12_C12_1
#define ICC_HPPIR1_EL1	S3_0_C12_C12_2
#define ICC_BPR1_EL1	S3_0_C12_C12_3
#define ICC_CTLR_EL1	S3_0_C12_C12_4
#define ICC_SRE_EL1	S3_0_C12_C12_5
#define ICC_IGRPEN0_EL1	S3_0_C12_C12_6
#define ICC_IGRPEN1_EL1	S3_0_C12_C12_7
#define MPIDR_EL1	S3_0_C0_C0_5
#define CNTVCT_EL0	S3_3_C14_C0_2
#define CNTV_TVAL_EL0	S3_3_C14_C3_0
#define CNTV_CTL_EL0	S3_3_C14_C3_1
#define CNTV_CVAL_EL0	S3_3_C14_C3_2

#define NAME2(text)	#text
#define NAME(text)	NAME2(text)
#define READ(reg)	({ uint64_t got; asm volatile("mrs %0, " NAME(reg) : "=r"(got) : : "memory"); got; })
#define WRITE(reg, to)	asm volatile("msr " NAME(reg) ", %0\n\tisb" : : "r"((uint64_t)(to)) : "memory")

#define ENCODING(op0, op1, crn, crm, op2)	((op0) << 14 | (op1) << 11 | (crn) << 7 | (crm) << 3 | (op2))
#define ICC(crm, op2)				ENCODING(3, 0, 12, crm, op2)

int gic_read(uint32_t reg, uint64_t *value)
{
	switch (reg) {
	case ENCODING(3, 0, 4, 6, 0): *value = READ(ICC_PMR_EL1); break;
	case ICC(8, 0): *value = READ(ICC_IAR0_EL1); break;
	case ICC(8, 2): *value = READ(ICC_HPPIR0_EL1); break;
	case ICC(8, 3): *value = READ(ICC_BPR0_EL1); break;
	case ICC(8, 4): *value = READ(ICC_AP0R0_EL1); break;
	case ICC(9, 0): *value = READ(ICC_AP1R0_EL1); break;
	case ICC(11, 3): *value = READ(ICC_RPR_EL1); break;
	case ICC(12, 0): *value = READ(ICC_IAR1_EL1); break;
	case ICC(12, 2): *value = READ(ICC_HPPIR1_EL1); break;
	case ICC(12, 3): *value = READ(ICC_BPR1_EL1); break;
	case ICC(12, 4): *value = READ(ICC_CTLR_EL1); break;
	case ICC(12, 5): *value = READ(ICC_SRE_EL1); break;
	case ICC(12, 6): *value = READ(ICC_IGRPEN0_EL1); break;
	case ICC(12, 7): *value = READ(ICC_IGRPEN1_EL1); break;
	case ENCODING(3, 0, 0, 0, 5): *value = READ(MPIDR_EL1); break;
	case ENCODING(3, 3, 14, 0, 2): *value = READ(CNTVCT_EL0); break;
	case ENCODING(3, 3, 14, 3, 1): *value = READ(CNTV_CTL_EL0); break;
	default: return 0;
	}
	return 1;
}

int gic_write(uint32_t reg, uint64_t value)
{
	switch (reg) {
	case ENCODING(3, 0, 4, 6, 0): WRITE(ICC_PMR_EL1, value); break;
	case ICC(8, 1): WRITE(ICC_EOIR0_EL1, value); break;
	case ICC(8, 3): WRITE(ICC_BPR0_EL1, value); break;
	case ICC(8, 4): WRITE(ICC_AP0R0_EL1, value); break;
	case ICC(9, 0): WRITE(ICC_AP1R0_EL1, value); break;
	case ICC(11, 1): WRITE(ICC_DIR_EL1, value); break;
	case ICC(11, 5): WRITE(ICC_SGI1R_EL1, value); break;
	case ICC(11, 6): WRITE(ICC_ASGI1R_EL1, value); break;
	case ICC(11, 7): WRITE(ICC_SGI0R_EL1, value); break;
	case ICC(12, 1): WRITE(ICC_EOIR1_EL1, value); break;
	case ICC(12, 3): WRITE(ICC_BPR1_EL1, value); break;
	case ICC(12, 4): WRITE(ICC_CTLR_EL1, value); break;
	case ICC(12, 5): WRITE(ICC_SRE_EL1, value); break;
	case ICC(12, 6): WRITE(ICC_IGRPEN0_EL1, value); break;
	case ICC(12, 7): WRITE(ICC_IGRPEN1_EL1, value); break;
	case ENCODING(3, 3, 14, 3, 0): WRITE(CNTV_TVAL_EL0, value); break;
	case ENCODING(3, 3, 14, 3, 1): WRITE(CNTV_CTL_EL0, value); break;
	case ENCODING(3, 3, 14, 3, 2): WRITE(CNTV_CVAL_EL0, value); break;
	default: return 0;
	}
	return 1;
}

uint32_t gic_slot(uint64_t intid)
{
	if (intid < SLOT_OWN_END)
		return (uint32_t)intid;
	if (intid >= 8192)
		return SLOT_LPI + (uint32_t)((intid - 8192) % SLOT_LPIS);
	return intid >= 1020 ? SLOT_SPURIOUS : SLOT_SPI + (uint32_t)(intid % 31);
}

/* groups: bit 0 group 0, bit 1 group 1 */
uint64_t gic_enable(uint64_t priority_mask, uint64_t control, uint64_t groups)
{
	WRITE(ICC_SRE_EL1, READ(ICC_SRE_EL1) | 1);
	WRITE(ICC_PMR_EL1, priority_mask);
	WRITE(ICC_CTLR_EL1, control);
	/* QEMU's ICH_MISR_EL2.VGrp0D looks at group 1: group 0 alone would interrupt the hypervisor for ever. */
	WRITE(ICC_IGRPEN1_EL1, groups >> 1 & 1);
	WRITE(ICC_IGRPEN0_EL1, groups & 1);
	return READ(MPIDR_EL1);
}

/* With ICC_CTLR_EL1.EOImode set this drops the priority and leaves the interrupt active. */
void arch_eoi(struct vcpu *vcpu, uint64_t value)
{
	if (cpu_of(vcpu)->group0)
		WRITE(ICC_EOIR0_EL1, value);
	else
		WRITE(ICC_EOIR1_EL1, value);
}
