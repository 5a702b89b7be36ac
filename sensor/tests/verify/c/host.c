/*
 * Opens every library named on the command line (prefix l: local, g: global, d: local with
 * RTLD_DEEPBIND, n: a new namespace), calls its plugin_run and waits for the end of its input.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdio.h>

int main(int argc, char **argv)
{
	setvbuf(stdout, NULL, _IOLBF, 0);
	for (int i = 1; i < argc; i++) {
		const char *path = argv[i] + 2;
		void *handle = NULL;
		switch (argv[i][0]) {
		case 'l': handle = dlopen(path, RTLD_LAZY | RTLD_LOCAL); break;
		case 'g': handle = dlopen(path, RTLD_NOW | RTLD_GLOBAL); break;
#ifdef __GLIBC__
		case 'd': handle = dlopen(path, RTLD_NOW | RTLD_DEEPBIND); break;
		case 'n': handle = dlmopen(LM_ID_NEWLM, path, RTLD_NOW); break;
#endif
		}
		int (*run)(void) = handle ? (int (*)(void))dlsym(handle, "plugin_run") : NULL;
		if (!run) {
			printf("cannot open %s: %s\n", path, dlerror());
			return 1;
		}
		run();
	}
	puts("ready");
	while (getchar() != EOF)
		;
	return 0;
}
