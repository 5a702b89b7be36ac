/*
 * Imitates, harmlessly, how the XZ backdoor made the loader call it back: it writes an audit
 * interface of its own into the loader's state (_dl_audit, _dl_naudit), though nobody asked for
 * auditing. For tests only. The one callback answers with what it was given, and no function of
 * the program is redirected; it opens nothing. x86_64, glibc 2.35 and later.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <link.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

struct interface {
	void *activity, *objsearch, *objopen, *preinit;
	void *symbind, *pltenter, *pltexit, *objclose;
	struct interface *next;
};

static uintptr_t symbind(Elf64_Sym *sym)
{
	return sym->st_value;
}

static struct interface own = { .symbind = (void *)symbind };

__attribute__((constructor)) static void forge(void)
{
	/* mov _dl_naudit(%rip), %eax */
	const unsigned char *code = dlsym(RTLD_DEFAULT, "_dl_audit_preinit");
	int32_t displacement;

	if (!code || code[0] != 0x8b || code[1] != 0x05) {
		fputs("forge_audit: the loader's code is another\n", stderr);
		return;
	}
	memcpy(&displacement, code + 2, sizeof displacement);
	uintptr_t count = (uintptr_t)code + 6 + displacement;
	uintptr_t mask = ~(uintptr_t)(getpagesize() - 1), page = (count - 8) & mask;
	size_t bytes = ((count + 3) & mask) - page + getpagesize();

	mprotect((void *)page, bytes, PROT_READ | PROT_WRITE);
	*(struct interface **)(count - 8) = &own;
	*(unsigned *)count = 1;
	mprotect((void *)page, bytes, PROT_READ);
}
