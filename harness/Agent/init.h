/* SPDX-License-Identifier: MIT */
#ifndef CONFORMANCE_INIT_H
#define CONFORMANCE_INIT_H

/* Whether this is the first process of an initramfs. */
int is_init(void);
/* Mounts what a test may want to see and loads the modules that the port needs. */
void init_machine(void);
/* Waits for the virtio-serial port of the agent and opens it. */
int init_open_port(void);
/* One line to the kernel's log. */
void init_say(const char *format, ...) __attribute__((format(printf, 1, 2)));

#endif
