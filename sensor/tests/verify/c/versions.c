/* A library with two versions of one function; -DOLD builds its predecessor. */
#ifdef OLD
int versioned(void)
{
	return 1;
}
#else
__asm__(".symver versioned_1, versioned@V1\n.symver versioned_2, versioned@@V2\n");
int versioned_1(void)
{
	return 1;
}
int versioned_2(void)
{
	return 2;
}
#endif
