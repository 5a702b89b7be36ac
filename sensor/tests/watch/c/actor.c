/* Does one thing to a file, as somebody would who plants a library with the loader, and waits for
 * the end of its standard input. It touches only the files named on its command line, which the
 * tests have below a root of their own in the temporary directory; the "libraries" named in them
 * are empty files. It opens nothing to anybody.
 *
 *   actor hold | write FILE TEXT | relative DIR NAME TEXT | dirfd DIR NAME TEXT | append FILE TEXT
 *       | rename FROM TO | link FROM TO | symlink TARGET TO | unlink FILE | truncate FILE
 *       | chmod FILE MODE | mmap FILE TEXT | uring FILE TEXT | moment FILE TEXT
 *
 * Prints "ready" when done, "unsupported: REASON" where the kernel has no io_uring. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/io_uring.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

static void need(int ok, const char *what)
{
    if (!ok) {
        fprintf(stderr, "%s: %s\n", what, strerror(errno));
        exit(1);
    }
}

static void put(int file, const char *text)
{
    need(file >= 0, "open");
    need(write(file, text, strlen(text)) == (ssize_t)strlen(text), "write");
    need(close(file) == 0, "close");
}

static void map(const char *path, const char *text)
{
    size_t length = strlen(text);
    int file = open(path, O_RDWR);
    need(file >= 0, "open");
    need(ftruncate(file, (off_t)length) == 0, "ftruncate");
    char *memory = mmap(NULL, length, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
    need(memory != MAP_FAILED, "mmap");
    need(close(file) == 0, "close");
    memcpy(memory, text, length);
    need(munmap(memory, length) == 0, "munmap");
}

/* One write through the rings, the file opened before. */
static int uring(const char *path, const char *text)
{
    struct io_uring_params params = {0};
    int ring = (int)syscall(SYS_io_uring_setup, 4, &params);
    if (ring < 0)
        return 0;
    size_t queue_size = params.sq_off.array + params.sq_entries * sizeof(unsigned);
    char *queue = mmap(NULL, queue_size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_POPULATE, ring,
                       IORING_OFF_SQ_RING);
    struct io_uring_sqe *entries =
        mmap(NULL, params.sq_entries * sizeof(*entries), PROT_READ | PROT_WRITE,
             MAP_SHARED | MAP_POPULATE, ring, IORING_OFF_SQES);
    need(queue != MAP_FAILED && entries != MAP_FAILED, "mmap of the rings");
    int file = open(path, O_WRONLY | O_CREAT | O_TRUNC, 0644);
    need(file >= 0, "open");
    memset(&entries[0], 0, sizeof(entries[0]));
    entries[0].opcode = IORING_OP_WRITE;
    entries[0].fd = file;
    entries[0].addr = (unsigned long)text;
    entries[0].len = (unsigned)strlen(text);
    unsigned *tail = (unsigned *)(queue + params.sq_off.tail);
    unsigned *array = (unsigned *)(queue + params.sq_off.array);
    array[*tail & *(unsigned *)(queue + params.sq_off.ring_mask)] = 0;
    __atomic_store_n(tail, *tail + 1, __ATOMIC_RELEASE);
    need(syscall(SYS_io_uring_enter, ring, 1, 1, IORING_ENTER_GETEVENTS, NULL, 0) == 1, "enter");
    need(close(file) == 0, "close");
    return 1;
}

int main(int argc, char **argv)
{
    const char *verb = argc > 1 ? argv[1] : "", *a = argc > 2 ? argv[2] : "";
    const char *b = argc > 3 ? argv[3] : "", *c = argc > 4 ? argv[4] : "";
    const int make = O_WRONLY | O_CREAT | O_TRUNC;
    if (!strcmp(verb, "write"))
        put(open(a, make, 0644), b);
    else if (!strcmp(verb, "relative")) {
        need(chdir(a) == 0, "chdir");
        put(open(b, make, 0644), c);
    } else if (!strcmp(verb, "dirfd"))
        put(openat(open(a, O_PATH | O_DIRECTORY), b, make, 0644), c);
    else if (!strcmp(verb, "append"))
        put(open(a, O_WRONLY | O_APPEND), b);
    else if (!strcmp(verb, "rename"))
        need(rename(a, b) == 0, verb);
    else if (!strcmp(verb, "link"))
        need(link(a, b) == 0, verb);
    else if (!strcmp(verb, "symlink"))
        need(symlink(a, b) == 0, verb);
    else if (!strcmp(verb, "unlink"))
        need(unlink(a) == 0, verb);
    else if (!strcmp(verb, "truncate"))
        need(truncate(a, 0) == 0, verb);
    else if (!strcmp(verb, "chmod"))
        need(chmod(a, (mode_t)strtoul(b, NULL, 8)) == 0, verb);
    else if (!strcmp(verb, "mmap"))
        map(a, b);
    else if (!strcmp(verb, "moment")) {
        put(open(a, make, 0644), b);
        usleep(60000); /* as long as a program takes to start with it */
        need(unlink(a) == 0, "unlink");
    } else if (!strcmp(verb, "uring")) {
        if (!uring(a, b)) {
            printf("unsupported: io_uring_setup: %s\n", strerror(errno));
            return 0;
        }
    } else
        need(!strcmp(verb, "hold"), "no such verb");
    puts("ready");
    fflush(stdout);
    char end;
    while (read(0, &end, 1) > 0)
        ;
    return 0;
}
