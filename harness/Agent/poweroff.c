// SPDX-License-Identifier: MIT
/* An init that only powers off: what a boot costs without us, for `conformance bench boot`. */
#include <sys/reboot.h>

int main(void)
{
	return reboot(RB_POWER_OFF);
}
