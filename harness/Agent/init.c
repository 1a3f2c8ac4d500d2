// SPDX-License-Identifier: MIT
/* What PID 1 of an initramfs does before it is a supervisor like any other. */
#define _GNU_SOURCE
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/netlink.h>
#include <poll.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "init.h"

#define PORT_NAME	"agent.0"
#define PORTS		"/sys/class/virtio-ports"
#define BOOT_LIST	"/modules/boot.list"
/* Should a uevent be missed, the port is looked for again after so long. */
#define LOOK_AGAIN_MS	50

int is_init(void)
{
	return getpid() == 1;
}

void init_say(const char *format, ...)
{
	int fd = open("/dev/kmsg", O_WRONLY | O_CLOEXEC);
	char text[512], line[640];
	va_list args;

	if (fd < 0)
		return;
	va_start(args, format);
	vsnprintf(text, sizeof(text), format, args);
	va_end(args);
	snprintf(line, sizeof(line), "conformance: %s\n", text);
	/* Not dprintf, which seeks first: this device does not let it. */
	if (write(fd, line, strlen(line)) < 0)
		fputs(line, stderr);
	close(fd);
}

/* What this kernel does not have is missed by whoever needs it. */
static void mount_all(void)
{
	static const struct {
		const char *type, *path;
	} wanted[] = {
		{ "proc", "/proc" },
		{ "sysfs", "/sys" },
		{ "devtmpfs", "/dev" },
		{ "tmpfs", "/tmp" },
		{ "debugfs", "/sys/kernel/debug" },
		{ "tracefs", "/sys/kernel/tracing" },
	};

	for (size_t i = 0; i < sizeof(wanted) / sizeof(wanted[0]); i++) {
		mkdir(wanted[i].path, 0755);
		mount(wanted[i].type, wanted[i].path, wanted[i].type, 0, NULL);
	}
}

/* An initramfs without a console node leaves 0, 1 and 2 to whatever is opened first. */
static void open_standard_streams(void)
{
	int fd;

	do
		fd = open("/dev/console", O_RDWR);
	while (fd >= 0 && fd <= 2);
	if (fd < 0)
		do
			fd = open("/dev/null", O_RDWR);
		while (fd >= 0 && fd <= 2);
	if (fd > 2)
		close(fd);
}

static void load_boot_modules(void)
{
	FILE *list = fopen(BOOT_LIST, "re");
	char path[512];

	while (list && fgets(path, sizeof(path), list)) {
		int fd;

		path[strcspn(path, "\n")] = 0;
		if (!path[0])
			continue;
		fd = open(path, O_RDONLY | O_CLOEXEC);
		if (fd < 0 || (syscall(SYS_finit_module, fd, "", 0) && errno != EEXIST))
			init_say("cannot load %s: %s", path, strerror(errno));
		if (fd >= 0)
			close(fd);
	}
	if (list)
		fclose(list);
}

void init_machine(void)
{
	umask(022);
	mount_all();
	open_standard_streams();
	load_boot_modules();
}

static int is_our_port(const char *entry)
{
	char path[512], name[64] = "";
	FILE *file;

	snprintf(path, sizeof(path), PORTS "/%s/name", entry);
	file = fopen(path, "re");
	if (!file)
		return 0;
	if (!fgets(name, sizeof(name), file))
		name[0] = 0;
	fclose(file);
	name[strcspn(name, "\n")] = 0;
	return !strcmp(name, PORT_NAME);
}

static int find_port(void)
{
	DIR *ports = opendir(PORTS);
	struct dirent *entry;
	int fd = -1;

	while (ports && fd < 0 && (entry = readdir(ports))) {
		char path[512];

		if (entry->d_name[0] == '.' || !is_our_port(entry->d_name))
			continue;
		snprintf(path, sizeof(path), "/dev/%s", entry->d_name);
		fd = open(path, O_RDWR | O_CLOEXEC | O_NONBLOCK);
	}
	if (ports)
		closedir(ports);
	return fd;
}

/* The device names its ports some time after its driver is there; a uevent says so. */
int init_open_port(void)
{
	struct sockaddr_nl all = { .nl_family = AF_NETLINK, .nl_groups = 1 };
	struct pollfd event = { .fd = socket(AF_NETLINK, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, NETLINK_KOBJECT_UEVENT), .events = POLLIN };
	char drained[4096];
	int fd, looks = 0;

	if (event.fd >= 0)
		bind(event.fd, (struct sockaddr *)&all, sizeof(all));
	while ((fd = find_port()) < 0) {
		if (++looks == 200)
			init_say("there is no virtio-serial port named %s yet", PORT_NAME);
		poll(&event, 1, LOOK_AGAIN_MS);
		while (event.fd >= 0 && recv(event.fd, drained, sizeof(drained), 0) > 0)
			;
	}
	if (event.fd >= 0)
		close(event.fd);
	return fd;
}
