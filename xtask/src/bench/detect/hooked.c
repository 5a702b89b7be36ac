/*
 * A program for the bench that redirects a slot of its own and says when: its slot of getppid leads
 * to a wrapper, also in the program, that passes every call through. It imitates a function hook in
 * a running process, and opens nothing: no file, no socket, no command.
 *
 * It begins with "ready SLOT WRAPPER MONOTONIC REALTIME" (two addresses, two clocks in ns) and
 * answers each line of its input with "called PARENT MONOTONIC REALTIME": what getppid said, and when
 * the slot was redirected (0 0 while it was not by the program itself). It ends with its input.
 *
 * -DRESOLVER     redirected by an IFUNC resolver while the loader relocates the program, as the XZ
 *                Utils backdoor (CVE-2024-3094) came in: RELRO is still writable
 * -DCONSTRUCTOR  redirected by a constructor, which reopens RELRO and seals it again
 * (neither)      redirected on the line "now", in the same way as by the constructor
 *
 * Build with -Wl,-z,relro,-z,now.
 */
#define _GNU_SOURCE
#include <elf.h>
#include <link.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#if defined(__x86_64__)
#define JUMP_SLOT R_X86_64_JUMP_SLOT
#define GLOB_DAT R_X86_64_GLOB_DAT
#elif defined(__aarch64__)
#define JUMP_SLOT R_AARCH64_JUMP_SLOT
#define GLOB_DAT R_AARCH64_GLOB_DAT
#else
#error "this program is written for x86_64 and aarch64"
#endif

typedef pid_t (*function)(void);

struct instant {
	long long monotonic, realtime;
};

extern const ElfW(Ehdr) __ehdr_start __attribute__((visibility("hidden")));

static function original;
static struct instant redirected_at;

static pid_t wrapper(void)
{
	return original();
}

static long long read_clock(clockid_t clock)
{
	struct timespec now;
	clock_gettime(clock, &now);
	return now.tv_sec * 1000000000LL + now.tv_nsec;
}

static struct instant instant(void)
{
	struct instant now;
	now.monotonic = read_clock(CLOCK_MONOTONIC);
	now.realtime = read_clock(CLOCK_REALTIME);
	return now;
}

/* Asked for by a resolver, too: nothing but the program's own headers. */
static volatile function *find_slot(void)
{
	uintptr_t base = (uintptr_t)&__ehdr_start;
	const ElfW(Rela) *tables[2] = {NULL, NULL};
	size_t sizes[2] = {0, 0};
	const ElfW(Sym) *symbols = NULL;
	const char *names = NULL;
	for (const ElfW(Dyn) *entry = _DYNAMIC; entry->d_tag != DT_NULL; entry++) {
		switch (entry->d_tag) {
		case DT_RELA: tables[0] = (const void *)entry->d_un.d_ptr; break;
		case DT_RELASZ: sizes[0] = entry->d_un.d_val; break;
		case DT_JMPREL: tables[1] = (const void *)entry->d_un.d_ptr; break;
		case DT_PLTRELSZ: sizes[1] = entry->d_un.d_val; break;
		case DT_SYMTAB: symbols = (const void *)entry->d_un.d_ptr; break;
		case DT_STRTAB: names = (const void *)entry->d_un.d_ptr; break;
		}
	}
	for (int table = 0; table < 2; table++)
		for (size_t i = 0; i < sizes[table] / sizeof(ElfW(Rela)); i++) {
			const ElfW(Rela) *one = &tables[table][i];
			unsigned type = ELF64_R_TYPE(one->r_info);
			const char *name = names + symbols[ELF64_R_SYM(one->r_info)].st_name;
			if ((type == JUMP_SLOT || type == GLOB_DAT) && strcmp(name, "getppid") == 0)
				return (volatile function *)(base + one->r_offset);
		}
	abort();
}

static void redirect(int is_sealed)
{
	volatile function *slot = find_slot();
	uintptr_t size = is_sealed ? (uintptr_t)getpagesize() : 1;
	void *page = (void *)((uintptr_t)slot & -size);
	if (is_sealed && mprotect(page, size, PROT_READ | PROT_WRITE))
		abort();
	original = *slot;
	*slot = wrapper;
	redirected_at = instant();
	if (is_sealed && mprotect(page, size, PROT_READ))
		abort();
}

#if defined(RESOLVER)
static int answer(void)
{
	return 0;
}

static int (*resolver(void))(void)
{
	redirect(0);
	return answer;
}

int resolved(void) __attribute__((ifunc("resolver")));
#elif defined(CONSTRUCTOR)
__attribute__((constructor)) static void constructor(void)
{
	redirect(1);
}
#endif

int main(void)
{
	char line[16];
	struct instant now;
	volatile function *slot = find_slot();
	/* For who redirects the slot from outside. */
	if (!original)
		original = *slot;
	setvbuf(stdout, NULL, _IOLBF, 0);
	now = instant();
	printf("ready %#lx %#lx %lld %lld\n", (unsigned long)slot, (unsigned long)wrapper, now.monotonic,
	       now.realtime);
	while (fgets(line, sizeof line, stdin)) {
		if (strcmp(line, "now\n") == 0 && *slot != wrapper)
			redirect(1);
		printf("called %d %lld %lld\n", (int)getppid(), redirected_at.monotonic,
		       redirected_at.realtime);
	}
#if defined(RESOLVER)
	return resolved();
#else
	return 0;
#endif
}
