# A tree of fifty C files, a shared library and a program that is run from the build tree.
mkdir /tmp/tree
cd /tmp/tree
for number in $(seq 50); do
    cat >"part$number.c" <<EOF
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <math.h>
struct item { double key; char name[32]; };
static int order(const void *a, const void *b) {
    const struct item *x = a, *y = b;
    return (x->key > y->key) - (x->key < y->key);
}
double part$number(int n) {
    struct item *items = calloc(n, sizeof *items);
    double sum = 0;
    for (int i = 0; i < n; i++) {
        items[i].key = sin(i * $number.0);
        snprintf(items[i].name, sizeof items[i].name, "item %d", i);
    }
    qsort(items, n, sizeof *items, order);
    for (int i = 0; i < n; i++) sum += items[i].key * strlen(items[i].name);
    free(items);
    return sum;
}
EOF
done
# A developer changes something between two builds.
{
    echo '#include <stdio.h>'
    for number in $(seq 50); do echo "double part$number(int);"; done
    echo "int main(void) { double sum = $ROUND;"
    for number in $(seq 50); do echo "sum += part$number(100);"; done
    printf '%s\n' 'printf("%f\n", sum); return 0; }'
} >main.c
cat >Makefile <<'EOF'
PARTS := $(patsubst %.c,%.o,$(wildcard part*.c))
CFLAGS := -O2 -Wall -fPIC
all: program
%.o: %.c
	$(CC) $(CFLAGS) -c -o $@ $<
libparts.so: $(PARTS)
	$(CC) -shared -o $@ $^ -lm
libparts.a: $(PARTS)
	$(AR) rcs $@ $^
program: main.o libparts.so libparts.a
	$(CC) -o $@ main.o -L. -lparts -lm
check: program
	LD_LIBRARY_PATH=. ./program
	strip --strip-unneeded -o stripped libparts.so
clean:
	rm -f *.o *.so *.a program stripped
EOF
make -j2
make check
make clean
