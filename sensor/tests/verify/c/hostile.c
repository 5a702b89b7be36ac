/*
 * Imitates a process that wants whoever checks it to loop, to crash or to use up its memory: it
 * falsifies the loader's list of its own modules, or maps the files named as code, and waits. Opens
 * nothing but those files; runs nothing of them.
 *
 * name: a module's name points where nothing is; loop: the list leads back to its beginning; back: a
 * module's l_prev is its own; long: a hundred thousand modules that are none; namespaces: the chain
 * of namespaces leads back to itself; map FILE...: as it says.
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <link.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
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

int main(int argc, char **argv)
{
	struct link_map *first = debug()->base.r_map, *last = first;
	const char *mode = argc > 1 ? argv[1] : "";

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
	else if (!strcmp(mode, "namespaces")) {
		debug()->base.r_version = 2;
		debug()->next = debug();
	}
	puts("done");
	getchar();
	_exit(0);
}
