# Three of its tools.
cd /tmp
printf '#include <stdlib.h>\nint main(void) { for (int i = 0; i < 100; i++) free(malloc(i)); return %s * 0; }\n' "$ROUND" >main.c
gcc -g -o main main.c
valgrind -q --error-exitcode=1 /bin/true
valgrind -q --error-exitcode=1 --leak-check=full ./main
valgrind -q --tool=massif --massif-out-file=/tmp/massif ./main
valgrind -q --tool=callgrind --callgrind-out-file=/tmp/callgrind ./main
