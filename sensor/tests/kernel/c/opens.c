// A program that opens a library after its start, with a secret all over its stack. Imitates a
// plug-in host, a library that loads another behind its program's back, and code injected into
// anonymous memory that does the same. What it opens does nothing.
//
//   opens self|fixed|other|memory|namespace|exec LIBRARY SECRET...
//
// Writes a line when the library is open and closed again (`namespace`: open; `exec`: the line comes from
// the shell that it has become), and ends with its input. `fixed` is `self` without randomized addresses.
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/personality.h>
#include <unistd.h>

#if __has_include(<link.h>)
#include <link.h>
#endif

void *ask(const char *path);

#define OUTLINE __attribute__((noinline))
// Who jumps leaves no return address.
#define STAY __asm__ volatile("" ::: "memory")

// What a function that handles passwords leaves on the stack below its caller.
OUTLINE static void leave(char **secrets) {
    volatile char room[6000];
    memset((char *)room, 0, sizeof room);
    size_t at = 0;
    for (int round = 0; round < 64; round++)
        for (char **secret = secrets; *secret; secret++) {
            size_t len = strlen(*secret) + 1;
            if (at + len + round % 8 >= sizeof room) return;
            memcpy((char *)room + at, *secret, len);
            at += len + round % 8;
        }
}

// Every byte of the address it is returned to is a letter where the program lies at 0x555555554000,
// which is where x86-64 puts it without randomization.
OUTLINE __attribute__((aligned(256))) static void *own(const char *path) {
#if defined __x86_64__
    __asm__ volatile(".skip 64, 0x90");
#endif
    void *library = dlopen(path, RTLD_NOW);
    STAY;
    return library;
}

// Calls its third argument with the first two.
#if defined __x86_64__
static const unsigned char thunk[] = {0x48, 0x83, 0xec, 8, 0xff, 0xd2, 0x48, 0x83, 0xc4, 8, 0xc3};
#elif defined __aarch64__
static const unsigned thunk[] = {0xa9bf7bfd, 0x910003fd, 0xd63f0040, 0xa8c17bfd, 0xd65f03c0};
#endif

OUTLINE static void *from_memory(const char *path) {
    void *memory = mmap(NULL, 4096, PROT_READ | PROT_WRITE | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (memory == MAP_FAILED) return NULL;
    memcpy(memory, thunk, sizeof thunk);
    __builtin___clear_cache(memory, (char *)memory + sizeof thunk);
    void *(*call)(const char *, int, void *(*)(const char *, int));
    memcpy(&call, &memory, sizeof call);
    return call(path, RTLD_NOW, dlopen);
}

OUTLINE static void *apart(const char *path) {
#ifdef LM_ID_NEWLM
    void *library = dlmopen(LM_ID_NEWLM, path, RTLD_NOW);
    STAY;
    return library;
#else
    return own(path);
#endif
}

OUTLINE static void *open_by(const char *mode, const char *path) {
    if (!strcmp(mode, "other")) return ask(path);
    if (!strcmp(mode, "memory")) return from_memory(path);
    if (!strcmp(mode, "namespace")) return apart(path);
    return own(path);
}

int main(int argc, char **argv) {
    if (argc < 3) return 2;
    if (!strcmp(argv[1], "fixed") && !(personality(0xffffffff) & ADDR_NO_RANDOMIZE)) {
        personality(ADDR_NO_RANDOMIZE);
        execv("/proc/self/exe", argv);
        return 5;
    }
    leave(argv + 3);
    void *library = open_by(argv[1], argv[2]);
    if (!library) {
        fprintf(stderr, "%s\n", dlerror());
        return 3;
    }
    if (strcmp(argv[1], "namespace")) dlclose(library);
    if (!strcmp(argv[1], "exec")) {
        execlp("sh", "sh", "-c", "echo done; exec cat", (char *)NULL);
        return 4;
    }
    puts("done");
    fflush(stdout);
    while (getchar() != EOF) {
    }
    return 0;
}
