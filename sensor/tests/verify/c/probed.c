/* A program whose function begins with a nop of five bytes, which the kernel may turn into a call
 * once a probe sits there. It is called once per line of input. */
#include <stdio.h>

__attribute__((noinline, used)) void probed(void);
__asm__(".text\n"
	".globl probed\n"
	".type probed, @function\n"
	"probed:\n"
	"	.byte 0x0f, 0x1f, 0x44, 0x00, 0x00\n"
	"	ret\n"
	".size probed, . - probed\n");

int main(void)
{
	setvbuf(stdout, NULL, _IOLBF, 0);
	puts("ready");
	for (int c; (c = getchar()) != EOF;)
		if (c == '\n') {
			probed();
			puts("called");
		}
	return 0;
}
