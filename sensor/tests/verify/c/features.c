/*
 * A library with the rarer kinds of references: undefined weak, protected, unique, a function's
 * address (canonical PLT entries), a datum of libc (copied into non-PIE programs).
 */
#define _GNU_SOURCE
#include <stdio.h>
#include <unistd.h>

extern void defined_nowhere(void) __attribute__((weak));

__attribute__((visibility("protected"))) int protected_function(void)
{
	return 3;
}
__attribute__((visibility("protected"))) int protected_datum = 4;

#ifdef __x86_64__
#define OBJECT "@gnu_unique_object"
#else
#define OBJECT "%gnu_unique_object"
#endif
__asm__(".data\n.balign 8\n.globl unique_datum\n.type unique_datum, " OBJECT "\n"
        "unique_datum: .quad 5\n.size unique_datum, 8\n.text\n");
extern long unique_datum;

void *feature(int which)
{
	switch (which) {
	case 0: return (void *)defined_nowhere;
	case 1: return (void *)protected_function;
	case 2: return &protected_datum;
	case 3: return &unique_datum;
	case 4: return (void *)getppid;
	case 5: return stdout;
	default: return NULL;
	}
}
