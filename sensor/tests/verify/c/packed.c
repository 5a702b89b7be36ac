/*
 * Imitates a packed program, which unpacks itself over its own file: maps memory over the page that
 * holds its program headers and fills it with what was there. Link it statically, as packers do.
 * Opens nothing, runs nothing else.
 */
#define _GNU_SOURCE
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/auxv.h>
#include <sys/mman.h>
#include <unistd.h>

int main(void)
{
	size_t size = (size_t)getpagesize();
	void *start = (void *)(getauxval(AT_PHDR) & ~(uintptr_t)(size - 1));

	setvbuf(stdout, NULL, _IOLBF, 0);
	/* This code may be in that page itself. */
	void *copy = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	if (copy == MAP_FAILED || mprotect(memcpy(copy, start, size), size, PROT_READ | PROT_EXEC))
		return 1;
	if (mremap(copy, size, size, MREMAP_MAYMOVE | MREMAP_FIXED, start) != start)
		return 1;
	puts("ready");
	getchar();
	_exit(0);
}
