/*
 * Imitates an inline hook: a preloaded library that overwrites the beginning of libc's getppid with
 * a jump to its own function, which answers the same. Opens nothing, sends nothing.
 *
 * -DRESTORE puts the old bytes back at once; -DREPLACE instead puts an anonymous copy of the main
 * program's code over it (-DCHANGE with one unused byte changed); -DUNLINK takes this library out of
 * the loader's list; -DMOVE falsifies its address there.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <link.h>
#include <stdint.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#define PAGE 4096UL

__attribute__((unused, visibility("hidden"))) int own_getppid(void)
{
	return (int)syscall(SYS_getppid);
}

static __attribute__((unused)) void patch(void)
{
	unsigned char *target = dlsym(RTLD_NEXT, "getppid");
	unsigned char old[5], jump[5] = { 0xe9 };
	int32_t way = (int32_t)((intptr_t)own_getppid - (intptr_t)(target + 5));
	void *page = (void *)((uintptr_t)target & ~(PAGE - 1));

	memcpy(old, target, sizeof(old));
	memcpy(jump + 1, &way, sizeof(way));
	mprotect(page, 2 * PAGE, PROT_READ | PROT_WRITE | PROT_EXEC);
	memcpy(target, jump, sizeof(jump));
#ifdef RESTORE
	memcpy(target, old, sizeof(old));
#endif
	mprotect(page, 2 * PAGE, PROT_READ | PROT_EXEC);
}

static int replace_main(struct dl_phdr_info *info, size_t size, void *done)
{
	(void)size, (void)done;
	for (int i = 0; i < info->dlpi_phnum; i++) {
		const ElfW(Phdr) *load = &info->dlpi_phdr[i];

		if (load->p_type != PT_LOAD || !(load->p_flags & PF_X))
			continue;
		char *start = (char *)((info->dlpi_addr + load->p_vaddr) & ~(PAGE - 1));
		char *end = (char *)(info->dlpi_addr + load->p_vaddr + load->p_filesz);
		size_t length = ((size_t)(end - start) + PAGE - 1) & ~(PAGE - 1);
		char *copy = mmap(NULL, length, PROT_READ | PROT_WRITE,
				  MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

		memcpy(copy, start, length);
#ifdef CHANGE
		/* Behind the last instruction. */
		copy[length - 1] ^= 1;
#endif
		mprotect(copy, length, PROT_READ | PROT_EXEC);
		mremap(copy, length, length, MREMAP_MAYMOVE | MREMAP_FIXED, start);
	}
	return 1; /* the main program only */
}

static __attribute__((unused)) struct link_map *own_entry(void)
{
	struct link_map *entry = NULL;
	Dl_info info;

	dladdr1((void *)own_getppid, &info, (void **)&entry, RTLD_DL_LINKMAP);
	return entry;
}

__attribute__((constructor)) static void begin(void)
{
#if defined(REPLACE)
	dl_iterate_phdr(replace_main, NULL);
#elif defined(UNLINK)
	struct link_map *own = own_entry();

	own->l_prev->l_next = own->l_next;
	own->l_next->l_prev = own->l_prev;
	(void)replace_main;
#elif defined(MOVE)
	own_entry()->l_addr += PAGE;
	(void)replace_main;
#else
	patch();
	(void)replace_main;
#endif
}
