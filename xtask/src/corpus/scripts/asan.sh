# Instrumented programs, an instrumented library in a program that is not, both runtimes.
cd /tmp
cat >main.c <<EOF
#include <stdio.h>
#include <stdlib.h>
int sum(int *values, int count);
int main(void) {
    int *values = malloc(40);
    for (int i = 0; i < 10; i++) values[i] = i;
    printf("%d $ROUND\n", sum(values, 10));
    free(values);
    return 0;
}
EOF
echo 'int sum(int *values, int count) { int sum = 0; while (count--) sum += values[count]; return sum; }' >sum.c
gcc -g -fsanitize=address,undefined -o both main.c sum.c
./both | grep '^45 '
gcc -g -fsanitize=address -static-libasan -o static main.c sum.c
./static | grep '^45 '
gcc -g -fsanitize=address -shared -fPIC -o libsum.so sum.c
gcc -g -o plain main.c ./libsum.so -Wl,--allow-shlib-undefined
LD_PRELOAD=$(gcc -print-file-name=libasan.so) ./plain | grep '^45 '
LD_PRELOAD=$(gcc -print-file-name=libasan.so) ASAN_OPTIONS=detect_leaks=0 python3 -c 'import ctypes; print(ctypes.CDLL("/tmp/libsum.so"))'
