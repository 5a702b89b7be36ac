/*
 * A program that allocates through its own slots without end, for instruments that watch memory.
 */
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

int main(void)
{
	setvbuf(stdout, NULL, _IOLBF, 0);
	puts("ready");
	for (;;) {
		char *volatile memory = malloc(33);
		free(memory);
		nanosleep(&(struct timespec){ .tv_nsec = 5000000 }, NULL);
	}
}
