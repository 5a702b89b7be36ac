/* Uses the features library and takes the same addresses itself. */
#include <stdio.h>
#include <unistd.h>

void *feature(int which);
extern int protected_function(void);
extern void defined_nowhere(void) __attribute__((weak));

int main(void)
{
	setvbuf(stdout, NULL, _IOLBF, 0);
	void *volatile own = (void *)getppid;
	if (feature(4) != own || feature(0) || feature(5) != stdout || protected_function() != 3)
		return 1;
	if (defined_nowhere)
		defined_nowhere();
	puts("ready");
	while (getchar() != EOF)
		;
	return 0;
}
