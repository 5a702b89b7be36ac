/*
 * A program that calls getppid through its own slot: once per line of input it prints the answer.
 * With -DWITH_WORK it also calls work() of the IFUNC library.
 */
#include <stdio.h>
#include <unistd.h>

#ifdef WITH_WORK
int work(void);
#endif

int main(void)
{
	setvbuf(stdout, NULL, _IOLBF, 0);
#ifdef WITH_WORK
	if (work() != 7)
		return 1;
#endif
	puts("ready");
	for (int c; (c = getchar()) != EOF;)
		if (c == '\n')
			printf("%d\n", (int)getppid());
	return 0;
}
