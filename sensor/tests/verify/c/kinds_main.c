/*
 * Uses the library of every kind of slot, directly and through the table: linked for fixed
 * addresses it has a copy of that table. Then it answers like the victim.
 */
#include <stdio.h>
#include <unistd.h>

struct operations {
	int (*own)(void);
	int (*exported)(void);
	int (*parent)(void);
	int (*print)(const char *);
};
extern const struct operations kinds_operations;
extern __thread int kinds_count;
int kinds_run(int which);

static int first(void)
{
	return 1;
}

static int second(void)
{
	return 2;
}

__attribute__((constructor)) static void begin(void)
{
	setvbuf(stdout, NULL, _IOLBF, 0);
}

__attribute__((destructor)) static void end(void)
{
	fflush(stdout);
}

static int (*const own_table[])(void) = { first, second };

int main(void)
{
	int (*const *volatile table)(void) = own_table;
	if (table[0]() + table[1]() != 3 || !kinds_run(5) || !kinds_run(50))
		return 1;
	if (kinds_operations.parent() != getppid() || kinds_count < 2)
		return 1;
	kinds_operations.print("ready");
	for (int c; (c = getchar()) != EOF;)
		if (c == '\n')
			printf("%d\n", (int)getppid());
	return 0;
}
