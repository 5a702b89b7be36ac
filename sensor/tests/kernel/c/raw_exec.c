// Imitates a launcher that shapes a new program's stack by hand, as no shell can: the same variable
// twice, no variables at all, or no arguments at all. Opens nothing; what it names does not exist.
#include <string.h>
#include <unistd.h>

int main(int argc, char **argv) {
    if (argc < 3) return 2;
    char *twice[] = {"LD_PRELOAD=/nowhere/first.so", "A=b", "LD_PRELOAD=/nowhere/second.so", NULL};
    char *once[] = {"A=b", "LD_AUDIT=/nowhere/audit.so", NULL};
    char *none[] = {NULL};
    char *name[] = {argv[2], NULL};
    if (!strcmp(argv[1], "twice")) execve(argv[2], name, twice);
    if (!strcmp(argv[1], "no-environment")) execve(argv[2], name, none);
    if (!strcmp(argv[1], "no-arguments")) execve(argv[2], none, once);
    if (!strcmp(argv[1], "nothing")) execve(argv[2], none, none);
    return 3;
}
