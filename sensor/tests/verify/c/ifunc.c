/* A library whose work() is chosen by a resolver. */
static int work_one(void)
{
	return 7;
}

static int work_two(void)
{
	return 8;
}

int never;

static int (*choose_work(void))(void)
{
	return __builtin_expect((long)&never == 1, 0) ? work_two : work_one;
}

int work(void) __attribute__((ifunc("choose_work")));
