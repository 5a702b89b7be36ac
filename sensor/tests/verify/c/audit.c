/*
 * A harmless rtld-audit library, for tests only. With -DREDIRECT it answers the symbind callback
 * for getppid with a pass-through wrapper, the documented way to hook a function before RELRO is
 * sealed; without, it only watches. It opens nothing.
 */
#define _GNU_SOURCE
#include <link.h>
#include <stdint.h>
#include <string.h>

unsigned la_version(unsigned version)
{
	return version;
}

unsigned la_objopen(struct link_map *map, Lmid_t lmid, uintptr_t *cookie)
{
	(void)map, (void)lmid, (void)cookie;
	return LA_FLG_BINDTO | LA_FLG_BINDFROM;
}

static int (*original)(void);

static int wrapper(void)
{
	return original();
}

uintptr_t la_symbind64(Elf64_Sym *sym, unsigned ndx, uintptr_t *refcook, uintptr_t *defcook,
                       unsigned *flags, const char *name)
{
	(void)ndx, (void)refcook, (void)defcook, (void)flags;
#ifdef REDIRECT
	if (!strcmp(name, "getppid")) {
		original = (int (*)(void))sym->st_value;
		return (uintptr_t)wrapper;
	}
#endif
	(void)name, (void)wrapper, (void)original;
	return sym->st_value;
}
