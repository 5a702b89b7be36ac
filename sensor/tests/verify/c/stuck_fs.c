/*
 * Imitates a file system whose program stops answering: maps a library from it as code and then
 * waits, with every later question left unanswered. It has one file, ARGV[1]'s content, read only,
 * mounted in a mount namespace of its own over ARGV[2]. Needs root and /dev/fuse; says "not tried"
 * and why where it has neither.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/fuse.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

static int refuse(const char *what)
{
	printf("not tried: %s: %s\n", what, strerror(errno));
	return 0;
}

static void attributes(struct fuse_attr *attr, uint64_t node, uint64_t size)
{
	memset(attr, 0, sizeof(*attr));
	attr->ino = node;
	attr->size = size;
	attr->mode = node == FUSE_ROOT_ID ? S_IFDIR | 0755 : S_IFREG | 0755;
	attr->nlink = 1;
	attr->blksize = 4096;
}

/* Answers until told to stop; then it only keeps the file system alive. */
static void serve(int fuse, int file, uint64_t size, int stop)
{
	static char buffer[1 << 20], data[1 << 18];

	for (;;) {
		ssize_t got = read(fuse, buffer, sizeof(buffer));
		struct fuse_in_header *in = (void *)buffer;
		struct fuse_out_header out = { .unique = in->unique };
		void *body = buffer + sizeof(*in);
		size_t length = 0;
		char told;

		if (got < (ssize_t)sizeof(*in))
			_exit(0);
		if (read(stop, &told, 1) == 1)
			for (;;)
				pause();
		switch (in->opcode) {
		case FUSE_INIT: {
			struct fuse_init_in *init = body;
			struct fuse_init_out reply = { .major = FUSE_KERNEL_VERSION,
				.minor = init->minor < FUSE_KERNEL_MINOR_VERSION ? init->minor : FUSE_KERNEL_MINOR_VERSION,
				.max_write = 4096, .max_readahead = 65536 };
			memcpy(data, &reply, length = sizeof(reply));
			break;
		}
		case FUSE_LOOKUP: {
			struct fuse_entry_out reply = { .nodeid = 2 };
			attributes(&reply.attr, 2, size);
			memcpy(data, &reply, length = sizeof(reply));
			break;
		}
		case FUSE_GETATTR: {
			struct fuse_attr_out reply = { 0 };
			attributes(&reply.attr, in->nodeid, size);
			memcpy(data, &reply, length = sizeof(reply));
			break;
		}
		case FUSE_OPEN: {
			struct fuse_open_out reply = { .open_flags = FOPEN_KEEP_CACHE };
			memcpy(data, &reply, length = sizeof(reply));
			break;
		}
		case FUSE_READ: {
			struct fuse_read_in *ask = body;
			size_t most = ask->size < sizeof(data) ? ask->size : sizeof(data);
			ssize_t read = pread(file, data, most, (off_t)ask->offset);
			length = read < 0 ? 0 : (size_t)read;
			break;
		}
		case FUSE_FORGET:
		case FUSE_INTERRUPT:
			continue;
		default:
			out.error = -ENOSYS;
		}
		out.len = (uint32_t)(sizeof(out) + length);
		struct iovec parts[] = { { &out, sizeof(out) }, { data, length } };
		if (writev(fuse, parts, 2) < 0 && errno != ENOENT)
			_exit(1);
	}
}

int main(int argc, char **argv)
{
	char options[128], path[4096];
	int stop[2], fuse, file;
	struct stat status;

	setvbuf(stdout, NULL, _IOLBF, 0);
	if (argc != 3 || (file = open(argv[1], O_RDONLY)) < 0 || fstat(file, &status))
		return refuse("arguments");
	if ((fuse = open("/dev/fuse", O_RDWR)) < 0)
		return refuse("/dev/fuse");
	if (unshare(CLONE_NEWNS) || mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL))
		return refuse("mount namespace");
	snprintf(options, sizeof(options), "fd=%d,rootmode=40000,user_id=0,group_id=0,allow_other", fuse);
	if (mount("stuck", argv[2], "fuse.stuck", MS_NODEV, options))
		return refuse("mount");
	if (pipe2(stop, O_NONBLOCK))
		return refuse("pipe");
	if (fork() == 0) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		serve(fuse, file, (uint64_t)status.st_size, stop[0]);
	}
	close(fuse);
	snprintf(path, sizeof(path), "%s/libstuck.so", argv[2]);
	int library = open(path, O_RDONLY);
	size_t length = (size_t)status.st_size;
	char *code = mmap(NULL, length, PROT_READ | PROT_WRITE | PROT_EXEC, MAP_PRIVATE, library, 0);

	if (library < 0 || code == MAP_FAILED)
		return refuse("map");
	/* A private page, which has to be compared. */
	code[length / 2] ^= 1;
	/* While it is answered: else this process could not even end. */
	close(library);
	if (write(stop[1], "x", 1) != 1)
		return refuse("stop");
	puts("ready");
	getchar();
	return 0;
}
