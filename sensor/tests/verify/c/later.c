/*
 * Does on request what changes a process after its start; one answer per line of input:
 * o PATH opens a library; f forks a child, which waits until it is killed or its parent ends, and
 * answers with its number; w makes a page of its own code writable; a maps a page of executable memory.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <unistd.h>

int main(void)
{
	char line[4096];
	setvbuf(stdout, NULL, _IOLBF, 0);
	puts("ready");
	while (fgets(line, sizeof(line), stdin)) {
		line[strcspn(line, "\n")] = 0;
		if (line[0] == 'o') {
			puts(dlopen(line + 2, RTLD_NOW | RTLD_LOCAL) ? "opened" : dlerror());
		} else if (line[0] == 'f') {
			pid_t child = fork();
			if (child == 0) {
				prctl(PR_SET_PDEATHSIG, SIGKILL);
				for (;;)
					pause();
			}
			printf("%d\n", (int)child);
		} else if (line[0] == 'w') {
			uintptr_t page = (uintptr_t)main & ~(uintptr_t)(getpagesize() - 1);
			int all = PROT_READ | PROT_WRITE | PROT_EXEC;
			puts(mprotect((void *)page, (size_t)getpagesize(), all) ? "no" : "writable");
		} else if (line[0] == 'a') {
			int all = PROT_READ | PROT_EXEC, flags = MAP_PRIVATE | MAP_ANONYMOUS;
			void *area = mmap(NULL, (size_t)getpagesize(), all, flags, -1, 0);
			puts(area == MAP_FAILED ? "no" : "mapped");
		} else {
			puts("?");
		}
	}
	return 0;
}
