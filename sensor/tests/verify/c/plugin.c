/* A library to be opened at run time. All plugins export the same helper under the same name. */
#include <unistd.h>
#include <string.h>

int plugin_helper(void)
{
	return (int)getppid() + NUMBER;
}

int plugin_run(void)
{
	char text[64];
	memset(text, NUMBER, sizeof text);
	return plugin_helper() + text[1];
}
