# A program run under it, a breakpoint in libc, a running one attached to, its memory written.
cd /tmp
printf '#include <stdio.h>\n#include <unistd.h>\nint answer = 41;\nint main(int argc, char **argv) { (void)argv; printf("%%d\\n", answer); fflush(stdout); if (argc > 1) pause(); return 0; }\n' >main.c
gcc -g -O0 -o main main.c
gdb -nx -batch -ex 'break main' -ex run -ex 'set var answer = 42' -ex 'break write' -ex continue \
    -ex bt -ex delete -ex continue ./main | tee out
grep -x 42 out
./main wait >ready &
while [ ! -s ready ]; do sleep 0.05; done
gdb -nx -batch -ex 'print answer' -ex 'set var answer = 43' -ex 'print answer' -ex detach ./main "$!" | tee out
grep -qx '$2 = 43' out
kill "$!"
