/*
 * Does to its own vDSO what its argument says, and stays. "unmap" imitates a tool that hides it from
 * the program it runs, as valgrind does; "move" and "copy" (other memory with the same bytes in its
 * place) imitate who wants to answer in its stead; "forge ADDRESS" has the kernel say that it is
 * elsewhere. No byte of code changes. Opens nothing but its own maps, sends nothing.
 */
#define _GNU_SOURCE
#include <elf.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/auxv.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <unistd.h>

static char *start;
static size_t size;

static void find(void)
{
	char line[512];
	unsigned long from, to;
	FILE *maps = fopen("/proc/self/maps", "r");

	while (maps && fgets(line, sizeof(line), maps))
		if (strstr(line, "[vdso]") && sscanf(line, "%lx-%lx", &from, &to) == 2) {
			start = (char *)from;
			size = to - from;
		}
	if (maps)
		fclose(maps);
}

static int move(void)
{
	char *room = mmap(NULL, size, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	return mremap(start, size, size, MREMAP_MAYMOVE | MREMAP_FIXED, room) == room;
}

static int copy(void)
{
	char *bytes = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	memcpy(bytes, start, size);
	mprotect(bytes, size, PROT_READ | PROT_EXEC);
	return mremap(bytes, size, size, MREMAP_MAYMOVE | MREMAP_FIXED, start) == start;
}

static int forge(unsigned long address)
{
	unsigned long vector[128];
	FILE *own = fopen("/proc/self/auxv", "r");
	size_t words = own ? fread(vector, sizeof(*vector), 128, own) : 0;

	for (size_t at = 0; at + 1 < words; at += 2)
		if (vector[at] == AT_SYSINFO_EHDR)
			vector[at + 1] = address;
	return prctl(PR_SET_MM, PR_SET_MM_AUXV, vector, words * sizeof(*vector), 0) == 0;
}

int main(int argc, char **argv)
{
	const char *what = argc > 1 ? argv[1] : "";
	int done = 0;

	setvbuf(stdout, NULL, _IOLBF, 0);
	find();
	if (!start)
		done = 0;
	else if (strcmp(what, "unmap") == 0)
		done = munmap(start, size) == 0;
	else if (strcmp(what, "move") == 0)
		done = move();
	else if (strcmp(what, "copy") == 0)
		done = copy();
	else if (strcmp(what, "forge") == 0 && argc > 2)
		done = forge(strtoul(argv[2], NULL, 16));
	puts(done ? "ready" : "refused");
	getchar();
	return 0;
}
