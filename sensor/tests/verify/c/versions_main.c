/* Checks that each user got the version it was linked with. */
#include <stdio.h>

int old_user(void), new_user(void);

int main(void)
{
	setvbuf(stdout, NULL, _IOLBF, 0);
	if (old_user() != 1 || new_user() != 2)
		return 1;
	puts("ready");
	while (getchar() != EOF)
		;
	return 0;
}
