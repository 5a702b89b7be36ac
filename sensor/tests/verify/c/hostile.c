/*
 * Imitates a process that wants whoever checks it to loop, to crash or to use up its memory: it
 * falsifies the loader's list of its own modules, or maps the files named as code, and waits. Opens
 * nothing but those files; runs nothing of them.
 *
 * name: a module's name points where nothing is; loop: the list leads back to its beginning; back: a
 * module's l_prev is its own; long: a hundred thousand modules that are none; namespaces: the chain
 * of namespaces leads back to itself; state: the loader is at work for ever; none: the list is gone;
 * no-loader, no-headers: the kernel is told that it started the program without a loader, and where a
 * library's headers (or nobody's) are; other-loader: another file of the same bytes, but for a name,
 * is where the loader's headers are; map FILE...: as it says.
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <elf.h>
#include <link.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/auxv.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <unistd.h>

#define MANY 100000

/* struct r_debug_extended of glibc 2.35. */
struct extended {
	struct r_debug base;
	void *next;
};

static int map(const char *path)
{
	int file = open(path, O_RDONLY);
	struct stat status;

	if (file < 0 || fstat(file, &status))
		return 1;
	if (mmap(NULL, (size_t)status.st_size, PROT_READ | PROT_EXEC, MAP_PRIVATE, file, 0) == MAP_FAILED)
		return 1;
	return close(file);
}

static void lengthen(struct link_map *last)
{
	struct link_map *made = calloc(MANY, sizeof(*made));

	for (int i = 0; i < MANY; i++) {
		made[i].l_addr = (uintptr_t)made;
		made[i].l_name = "";
		made[i].l_ld = (void *)(made + i);
		made[i].l_prev = i ? made + i - 1 : last;
		made[i].l_next = i + 1 < MANY ? made + i + 1 : NULL;
	}
	last->l_next = made;
}

/* Not the symbol: that may be a copy of what the loader has. */
static struct extended *debug(void)
{
	for (ElfW(Dyn) *entry = _DYNAMIC; entry->d_tag != DT_NULL; entry++)
		if (entry->d_tag == DT_DEBUG)
			return (struct extended *)entry->d_un.d_ptr;
	abort();
}

/* Says of the process what PR_SET_MM_MAP lets anybody say; all but the auxiliary vector as it is. */
static int deny(uintptr_t headers)
{
	static ElfW(auxv_t) own[64];
	int file = open("/proc/self/auxv", O_RDONLY);
	ssize_t size = read(file, own, sizeof(own));

	for (int i = 0; own[i].a_type != AT_NULL; i++) {
		if (own[i].a_type == AT_BASE)
			own[i].a_un.a_val = 0;
		if (own[i].a_type == AT_PHDR)
			own[i].a_un.a_val = headers;
	}
	close(file);

	unsigned long is[52] = { 0 };
	char text[2048] = "", *rest = text;

	file = open("/proc/self/stat", O_RDONLY);
	if (read(file, text, sizeof(text) - 1) < 0 || close(file) || !(rest = strrchr(text, ')')))
		return 1;
	rest += 3;
	for (int field = 4; field < 52; field++)
		is[field] = strtoul(rest + 1, &rest, 10);

	struct prctl_mm_map map = {
		.start_code = is[26], .end_code = is[27], .start_stack = is[28],
		.start_data = is[45], .end_data = is[46], .start_brk = is[47],
		.arg_start = is[48], .arg_end = is[49], .env_start = is[50], .env_end = is[51],
		.brk = (uintptr_t)sbrk(0), .auxv = (void *)own, .auxv_size = (unsigned)size,
		.exe_fd = (unsigned)-1,
	};

	return prctl(PR_SET_MM, PR_SET_MM_MAP, &map, sizeof(map), 0UL);
}

/* Maps a copy of the loader over the first page of the loader; in the copy its list has no name. */
static int replace(void)
{
	size_t size = (size_t)getpagesize();
	struct link_map *loader = debug()->base.r_map;
	int copy = memfd_create("copy", 0);
	static char bytes[1 << 22];

	while (loader->l_next)
		loader = loader->l_next;

	int file = open(loader->l_name, O_RDONLY);
	ssize_t length = read(file, bytes, sizeof(bytes));

	for (ssize_t at = 0; at + 9 < length; at++)
		if (!memcmp(bytes + at, "\0_r_debug", 10))
			bytes[at + 1] = 'x';
	if (length <= 0 || write(copy, bytes, (size_t)length) != length)
		return 1;
	return mmap((void *)getauxval(AT_BASE), size, PROT_READ, MAP_PRIVATE | MAP_FIXED, copy, 0) == MAP_FAILED;
}

int main(int argc, char **argv)
{
	struct link_map *first = debug()->base.r_map, *last = first;
	const char *mode = argc > 1 ? argv[1] : "";
	int done = 1;

	setvbuf(stdout, NULL, _IOLBF, 0);
	while (last->l_next)
		last = last->l_next;
	for (int i = 2; i < argc; i++)
		if (map(argv[i]))
			return 1;
	/* Whatever the loader is still needed for has been done by now. */
	puts("ready");
	if (!strcmp(mode, "name"))
		last->l_name = (char *)8;
	else if (!strcmp(mode, "loop"))
		last->l_next = first;
	else if (!strcmp(mode, "back"))
		last->l_prev = last;
	else if (!strcmp(mode, "long"))
		lengthen(last);
	else if (!strcmp(mode, "state"))
		debug()->base.r_state = RT_ADD;
	else if (!strcmp(mode, "none"))
		debug()->base.r_map = NULL;
	else if (!strcmp(mode, "namespaces")) {
		debug()->base.r_version = 2;
		debug()->next = debug();
	} else if (!strcmp(mode, "no-loader"))
		done = !deny(first->l_next->l_next->l_addr);
	else if (!strcmp(mode, "no-headers"))
		done = !deny((uintptr_t)&mode);
	else if (!strcmp(mode, "other-loader"))
		done = !replace();
	puts(done ? "done" : "denied");
	getchar();
	_exit(0);
}
