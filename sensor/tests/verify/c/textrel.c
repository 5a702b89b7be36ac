/*
 * A library with relocations inside of its code (DT_TEXTREL), as hand-written assembler has them,
 * and a program that uses it.
 */
#include <stdio.h>

#ifdef LIBRARY
int value = 7;
__asm__(".text\n"
	".globl read_value\n"
	".type read_value, @function\n"
	"read_value:\n"
	"	movabs $value, %rax\n"
	"	movl (%rax), %eax\n"
	"	ret\n"
	".size read_value, . - read_value\n");
#else
int read_value(void);

int main(void)
{
	setvbuf(stdout, NULL, _IOLBF, 0);
	if (read_value() != 7)
		return 1;
	puts("ready");
	getchar();
	return 0;
}
#endif
