/*
 * Imitates, harmlessly, how the XZ backdoor made the loader call it back: it writes an audit
 * interface of its own into the loader's state (_dl_audit, _dl_naudit), though nobody asked for
 * auditing. For tests only. The one callback answers with what it was given, and no function of
 * the program is redirected; it opens nothing. For x86_64 and aarch64, glibc 2.35 and later.
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

/* Where the loader counts its audit interfaces: what _dl_audit_preinit reads first. */
static uintptr_t counter(const unsigned char *code)
{
#if defined(__x86_64__)
	/* mov _dl_naudit(%rip), %eax */
	int32_t displacement;

	if (code[0] != 0x8b || code[1] != 0x05)
		return 0;
	memcpy(&displacement, code + 2, sizeof displacement);
	return (uintptr_t)code + 6 + displacement;
#elif defined(__aarch64__)
	/* adrp xN, page; perhaps add xN, xN, #offset; ldr wM, [xN, #offset] */
	uintptr_t base[32] = { 0 };

	for (int i = 0; i < 32; i++) {
		uint32_t word;
		memcpy(&word, code + 4 * i, sizeof word);
		unsigned to = word & 31, from = word >> 5 & 31;
		uintptr_t offset = word >> 10 & 0xfff;

		if ((word & 0x9f000000) == 0x90000000) {
			int64_t pages = (word >> 5 & 0x7ffff) << 2 | (word >> 29 & 3);

			if (pages & 1 << 20)
				pages -= 1 << 21;
			base[to] = (((uintptr_t)code + 4 * i) & ~(uintptr_t)0xfff) + pages * 4096;
		} else if ((word & 0xffc00000) == 0x91000000) {
			base[to] = base[from] ? base[from] + offset : 0;
		} else if ((word & 0xffc00000) == 0xb9400000 && base[from]) {
			return base[from] + offset * 4;
		}
	}
	return 0;
#else
#error "the loader's code on this machine is not known"
#endif
}

__attribute__((constructor)) static void forge(void)
{
	const unsigned char *code = dlsym(RTLD_DEFAULT, "_dl_audit_preinit");
	uintptr_t count = code ? counter(code) : 0;

	if (!count) {
		fputs("forge_audit: the loader's code is another\n", stderr);
		return;
	}
	uintptr_t mask = ~(uintptr_t)(getpagesize() - 1), page = (count - 8) & mask;
	size_t bytes = ((count + 3) & mask) - page + getpagesize();

	mprotect((void *)page, bytes, PROT_READ | PROT_WRITE);
	*(struct interface **)(count - 8) = &own;
	*(unsigned *)count = 1;
	mprotect((void *)page, bytes, PROT_READ);
}
