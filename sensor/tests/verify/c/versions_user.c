/* Calls versioned() in the version it was linked with: -DNAME names the exported function. */
int versioned(void);
int NAME(void)
{
	return versioned();
}
