/*
 * A harmless imitation of a function hook by a shared library, for tests only.
 *
 * When it is loaded it overwrites one slot of the main program, as the XZ Utils backdoor
 * (CVE-2024-3094) did with sshd's RSA_public_decrypt. The wrapper passes every call through
 * unchanged. It opens nothing: no file, no socket, no command.
 *
 * Build:  -DTARGET=getppid      function whose slot is overwritten
 *         -DTAIL_JUMP           the wrapper jumps to the original instead of calling it
 *         -DIN_MODULE=libx      overwrite the slot of the module with this in its name instead
 *         -DEXPORT              export the wrapper under the function's own name
 *         -DRELRO_ROUTE         lift RELRO with mprotect, patch, seal again
 *         (without)             patch the slot as it is (programs without RELRO)
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <elf.h>
#include <link.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#define TEXT_OF(x) #x
#define TEXT(x) TEXT_OF(x)

#if defined(__x86_64__)
#define GLOB_DAT R_X86_64_GLOB_DAT
#define JUMP_SLOT R_X86_64_JUMP_SLOT
#elif defined(__aarch64__)
#define GLOB_DAT R_AARCH64_GLOB_DAT
#define JUMP_SLOT R_AARCH64_JUMP_SLOT
#else
#error "relocation types of this machine are not known here"
#endif

typedef long (*function)(long, long, long, long);
__attribute__((visibility("hidden"), used)) function original_function;

#ifdef TAIL_JUMP
long wrapper(long, long, long, long);
#if defined(__x86_64__)
__asm__(".text\n.hidden wrapper\n.globl wrapper\n.type wrapper, @function\n"
        "wrapper: jmp *original_function(%rip)\n.size wrapper, .-wrapper\n");
#else
__asm__(".text\n.hidden wrapper\n.globl wrapper\n.type wrapper, @function\n"
        "wrapper: adrp x16, original_function\nldr x16, [x16, :lo12:original_function]\nbr x16\n"
        ".size wrapper, .-wrapper\n");
#endif
#else
static long wrapper(long a, long b, long c, long d)
{
	return original_function(a, b, c, d);
}
#endif

#ifdef EXPORT
__asm__(".globl " TEXT(TARGET) "\n.type " TEXT(TARGET) ", @function\n"
        ".set " TEXT(TARGET) ", wrapper\n");
#endif

/* glibc turns the addresses of a dynamic section into absolute ones, musl does not. */
static const void *at(ElfW(Addr) base, ElfW(Addr) addr)
{
	return (const void *)(addr < base ? base + addr : addr);
}

static void *slot_in(ElfW(Addr) base, const ElfW(Dyn) *dynamic)
{
	const ElfW(Sym) *symbols = NULL;
	const char *strings = NULL;
	const ElfW(Rela) *tables[2] = {NULL, NULL};
	size_t sizes[2] = {0, 0};
	for (; dynamic->d_tag != DT_NULL; dynamic++) {
		switch (dynamic->d_tag) {
		case DT_SYMTAB: symbols = at(base, dynamic->d_un.d_ptr); break;
		case DT_STRTAB: strings = at(base, dynamic->d_un.d_ptr); break;
		case DT_RELA: tables[0] = at(base, dynamic->d_un.d_ptr); break;
		case DT_RELASZ: sizes[0] = dynamic->d_un.d_val; break;
		case DT_JMPREL: tables[1] = at(base, dynamic->d_un.d_ptr); break;
		case DT_PLTRELSZ: sizes[1] = dynamic->d_un.d_val; break;
		}
	}
	for (int t = 0; t < 2; t++)
		for (size_t i = 0; i < sizes[t] / sizeof(ElfW(Rela)); i++) {
			const ElfW(Rela) *r = &tables[t][i];
			unsigned type = ELF64_R_TYPE(r->r_info);
			const char *name = strings + symbols[ELF64_R_SYM(r->r_info)].st_name;
			if ((type == GLOB_DAT || type == JUMP_SLOT) && !strcmp(name, TEXT(TARGET)))
				return (void *)(base + r->r_offset);
		}
	return NULL;
}

__attribute__((constructor)) static void redirect(void)
{
	struct link_map *program = NULL;
	if (dlinfo(dlopen(NULL, RTLD_NOW), RTLD_DI_LINKMAP, &program))
		abort();
#ifdef IN_MODULE
	while (program && !strstr(program->l_name, TEXT(IN_MODULE)))
		program = program->l_next;
	if (!program)
		abort();
#endif
	function *slot = slot_in(program->l_addr, program->l_ld);
	original_function = (function)dlsym(RTLD_DEFAULT, TEXT(TARGET));
	if (!slot || !original_function)
		abort();
#ifdef RELRO_ROUTE
	uintptr_t size = sysconf(_SC_PAGESIZE), page = (uintptr_t)slot & -size;
	if (mprotect((void *)page, size, PROT_READ | PROT_WRITE))
		abort();
	*slot = (function)wrapper;
	if (mprotect((void *)page, size, PROT_READ))
		abort();
#else
	*slot = (function)wrapper;
#endif
}
