// Writes into another process as an injector does, but only into a spare buffer that the target
// offers for it; and makes its own sealed memory writable for a moment, as a hook does, and writes
// back what is there. Opens nothing, changes nothing else.
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/ptrace.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static char spare[8192];
// In .data.rel.ro: the loader relocates and seals it.
__attribute__((used)) static char *const sealed[1024] = {spare};

static int target(void) {
    printf("%d %p\n", getpid(), (void *)(spare + 4096));
    fflush(stdout);
    char byte;
    while (read(0, &byte, 1) > 0) {
    }
    return 0;
}

static int reopen(void) {
    uintptr_t size = sysconf(_SC_PAGESIZE);
    char *page = (char *)(((uintptr_t)sealed + size - 1) & ~(size - 1));
    if (mprotect(page, size, PROT_READ | PROT_WRITE)) return 3;
    char byte = *(volatile char *)page;
    *(volatile char *)page = byte;
    if (mprotect(page, size, PROT_READ)) return 4;
    return 0;
}

static int poke(pid_t pid, char *at, int times) {
    for (int i = 0; i < times; i++)
        if (ptrace(PTRACE_POKEDATA, pid, at, (void *)(long)i)) return 5;
    return ptrace(PTRACE_PEEKDATA, pid, at, 0) == times - 1 ? 0 : 6;
}

static int vm(pid_t pid, char *at, int times, int writes) {
    long value = 7;
    struct iovec here = {&value, sizeof value}, there = {at, sizeof value};
    for (int i = 0; i < times; i++) {
        ssize_t n = writes ? process_vm_writev(pid, &here, 1, &there, 1, 0)
                           : process_vm_readv(pid, &here, 1, &there, 1, 0);
        if (n != sizeof value) return 7;
    }
    return 0;
}

static int mem(pid_t pid, char *at, int times, const char *how) {
    char path[64];
    snprintf(path, sizeof path, "/proc/%d/mem", pid);
    int fd = open(path, O_RDWR);
    if (fd < 0) return 8;
    long value = 9;
    struct iovec here = {&value, sizeof value};
    for (int i = 0; i < times; i++) {
        ssize_t n;
        if (!strcmp(how, "pwrite")) n = pwrite(fd, &value, sizeof value, (off_t)(uintptr_t)at);
        else if (!strcmp(how, "pwritev")) n = pwritev(fd, &here, 1, (off_t)(uintptr_t)at);
        else if (!strcmp(how, "pread")) n = pread(fd, &value, sizeof value, (off_t)(uintptr_t)at);
        else {
            lseek(fd, (off_t)(uintptr_t)at, SEEK_SET);
            n = !strcmp(how, "writev") ? writev(fd, &here, 1) : write(fd, &value, sizeof value);
        }
        if (n != sizeof value) return 9;
    }
    return 0;
}

static int once(const char *how, pid_t pid, char *at, int times) {
    if (!strcmp(how, "vm")) return vm(pid, at, times, 1);
    if (!strcmp(how, "vm-read")) return vm(pid, at, times, 0);
    if (!strcmp(how, "ptrace")) return poke(pid, at, times);
    if (!strcmp(how, "peek")) {
        for (int i = 0; i < times; i++) ptrace(PTRACE_PEEKDATA, pid, at, 0);
        return 0;
    }
    return mem(pid, at, times, how);
}

// MODE PID ADDRESS TIMES: so many writes, a pause longer than a second, and as many again.
int main(int argc, char **argv) {
    if (argc == 2) return strcmp(argv[1], "reopen") ? target() : reopen();
    if (argc != 5) return 2;
    pid_t pid = atoi(argv[2]);
    char *at = (char *)(uintptr_t)strtoull(argv[3], 0, 0);
    int times = atoi(argv[4]), traces = !strcmp(argv[1], "ptrace") || !strcmp(argv[1], "peek");
    if (traces) {
        if (ptrace(PTRACE_ATTACH, pid, 0, 0) || waitpid(pid, 0, 0) != pid) return 10;
    }
    int failed = once(argv[1], pid, at, times);
    struct timespec pause = {1, 100000000};
    if (!failed && times > 1) {
        nanosleep(&pause, 0);
        failed = once(argv[1], pid, at, times);
    }
    if (traces) ptrace(PTRACE_DETACH, pid, 0, 0);
    return failed;
}
