/* A fake GPIO chip for tests, preloaded into `faceid door`: it answers the second version of the kernel's GPIO interface
 * (linux/gpio.h) for the path /dev/gpiochip77. It is no kernel and no hardware: it shows that our requests are well formed, what we
 * drive and when, and that a line is ours alone; not what a board does with a pin that its owner has let go of.
 *
 * In the folder $FACEID_FAKE_CHIP: `levels`, one digit a line, the physical level, which the test may write for inputs; `trace`, a line
 * `LINE LEVEL MILLISECONDS` for each time that an output is driven; `line-N`, locked as long as line N is requested. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/gpio.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <time.h>
#include <unistd.h>

#define CHIP "/dev/gpiochip77"
#define LINES 32
#define FDS 1024

static struct { int used, line, active_low, output; } requests[FDS];
static int is_chip_fd[FDS];

static int real_open(const char *path, int flags, mode_t mode)
{
	int (*next)(const char *, int, ...) = dlsym(RTLD_NEXT, "open64");
	return next(path, flags, mode);
}

static int in_folder(const char *name, int flags)
{
	char path[PATH_MAX];
	const char *folder = getenv("FACEID_FAKE_CHIP");
	if (!folder) {
		errno = ENOENT;
		return -1;
	}
	snprintf(path, sizeof path, "%s/%s", folder, name);
	return real_open(path, flags | O_CLOEXEC, 0600);
}

char *realpath(const char *path, char *resolved)
{
	char *(*next)(const char *, char *) = dlsym(RTLD_NEXT, "realpath");
	if (strcmp(path, CHIP) == 0 && !resolved && getenv("FACEID_FAKE_CHIP"))
		return strdup(CHIP);
	return next(path, resolved);
}

static int fake_open(const char *path, int flags, mode_t mode)
{
	if (strcmp(path, CHIP) != 0)
		return real_open(path, flags, mode);
	int fd = in_folder("levels", O_RDWR);
	if (fd >= FDS) {
		close(fd);
		errno = EMFILE;
		return -1;
	}
	if (fd >= 0)
		is_chip_fd[fd] = 1;
	return fd;
}

int open64(const char *path, int flags, ...)
{
	va_list arguments;
	va_start(arguments, flags);
	mode_t mode = va_arg(arguments, mode_t);
	va_end(arguments);
	return fake_open(path, flags, mode);
}

int open(const char *path, int flags, ...)
{
	va_list arguments;
	va_start(arguments, flags);
	mode_t mode = va_arg(arguments, mode_t);
	va_end(arguments);
	return fake_open(path, flags, mode);
}

int close(int fd)
{
	int (*next)(int) = dlsym(RTLD_NEXT, "close");
	if (fd >= 0 && fd < FDS) {
		is_chip_fd[fd] = 0;
		requests[fd].used = 0;
	}
	return next(fd);
}

static void drive(int line, int level)
{
	struct timespec now;
	char digit = level ? '1' : '0', text[64];
	clock_gettime(CLOCK_MONOTONIC, &now);
	int fd = in_folder("levels", O_WRONLY);
	if (fd < 0 || pwrite(fd, &digit, 1, line) != 1)
		abort();
	close(fd);
	int length = snprintf(text, sizeof text, "%d %d %lld\n", line, level, now.tv_sec * 1000LL + now.tv_nsec / 1000000);
	fd = in_folder("trace", O_WRONLY | O_CREAT | O_APPEND);
	if (fd < 0 || write(fd, text, length) != length)
		abort();
	close(fd);
}

static int request_line(struct gpio_v2_line_request *request)
{
	char name[32];
	unsigned int line = request->offsets[0];
	__u64 flags = request->config.flags;
	if (request->num_lines != 1 || line >= LINES || !(flags & (GPIO_V2_LINE_FLAG_INPUT | GPIO_V2_LINE_FLAG_OUTPUT)) ||
	    ((flags & GPIO_V2_LINE_FLAG_INPUT) && (flags & GPIO_V2_LINE_FLAG_OUTPUT))) {
		errno = EINVAL;
		return -1;
	}
	snprintf(name, sizeof name, "line-%u", line);
	int fd = in_folder(name, O_RDWR | O_CREAT);
	if (fd < 0 || fd >= FDS)
		return -1;
	/* The lock ends with the process, however that ends, as the kernel's would. */
	if (flock(fd, LOCK_EX | LOCK_NB) != 0) {
		close(fd);
		errno = EBUSY;
		return -1;
	}
	requests[fd].used = 1;
	requests[fd].line = line;
	requests[fd].active_low = !!(flags & GPIO_V2_LINE_FLAG_ACTIVE_LOW);
	requests[fd].output = !!(flags & GPIO_V2_LINE_FLAG_OUTPUT);
	if (requests[fd].output) {
		__u64 value = 0;
		for (unsigned int i = 0; i < request->config.num_attrs; i++)
			if (request->config.attrs[i].attr.id == GPIO_V2_LINE_ATTR_ID_OUTPUT_VALUES)
				value = request->config.attrs[i].attr.values & request->config.attrs[i].mask & 1;
		drive(line, (int)value ^ requests[fd].active_low);
	}
	request->fd = fd;
	return 0;
}

int ioctl(int fd, unsigned long code, ...)
{
	va_list arguments;
	va_start(arguments, code);
	void *argument = va_arg(arguments, void *);
	va_end(arguments);
	if (fd >= 0 && fd < FDS && is_chip_fd[fd]) {
		if (code == GPIO_V2_GET_LINE_IOCTL)
			return request_line(argument);
		if (code == GPIO_GET_CHIPINFO_IOCTL) {
			struct gpiochip_info *info = argument;
			memset(info, 0, sizeof *info);
			strcpy(info->name, "gpiochip77");
			strcpy(info->label, "fake");
			info->lines = LINES;
			return 0;
		}
		errno = ENOTTY;
		return -1;
	}
	if (fd >= 0 && fd < FDS && requests[fd].used) {
		struct gpio_v2_line_values *values = argument;
		if (code == GPIO_V2_LINE_SET_VALUES_IOCTL && requests[fd].output && values->mask == 1) {
			drive(requests[fd].line, (int)(values->bits & 1) ^ requests[fd].active_low);
			return 0;
		}
		if (code == GPIO_V2_LINE_GET_VALUES_IOCTL) {
			char digit = '0';
			int levels = in_folder("levels", O_RDONLY);
			ssize_t count = levels < 0 ? -1 : pread(levels, &digit, 1, requests[fd].line);
			if (levels >= 0)
				close(levels);
			if (count != 1 || (digit != '0' && digit != '1')) {
				errno = EIO;
				return -1;
			}
			values->bits = (digit == '1') ^ requests[fd].active_low;
			return 0;
		}
		errno = EPERM;
		return -1;
	}
	int (*next)(int, unsigned long, ...) = dlsym(RTLD_NEXT, "ioctl");
	return next(fd, code, argument);
}
