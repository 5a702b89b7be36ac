/*
 * A library with a slot of every kind: functions in read-only tables (its own, another module's,
 * an exported one), functions run at start and exit, thread-local storage through descriptors where
 * the compiler is told so, and a table that a program linked for fixed addresses copies.
 */
#include <stdio.h>
#include <unistd.h>

struct operations {
	int (*own)(void);
	int (*exported)(void);
	int (*parent)(void);
	int (*print)(const char *);
};

static __thread int own_count;
__thread int kinds_count;
static int started;

static int own(void)
{
	return ++own_count;
}

int kinds_exported(void)
{
	return ++kinds_count;
}

__attribute__((constructor)) static void begin(void)
{
	started = 1;
}

__attribute__((destructor)) static void end(void)
{
	started = 0;
}

const struct operations kinds_operations = { own, kinds_exported, getppid, puts };

/* Many more of the same: a real library has hundreds. */
#define ONE { own, kinds_exported, getppid, puts }
#define TEN ONE, ONE, ONE, ONE, ONE, ONE, ONE, ONE, ONE, ONE
static const struct operations many[] = { TEN, TEN, TEN, TEN, TEN, TEN, TEN, TEN, TEN, TEN };

int kinds_run(int which)
{
	const struct operations *volatile table = many;
	return started ? table[which].own() + table[which].exported() : 0;
}
