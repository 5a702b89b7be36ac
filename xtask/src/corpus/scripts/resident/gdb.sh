# A program in the debugger, with breakpoints that are not met: one that is met has the debugger write
# into the program, which is told as such.
cd /tmp
cat >work.c <<'C'
#include <stdio.h>
#include <unistd.h>
__attribute__((noinline)) void neither(int n) { printf("%d\n", n + 1); }
__attribute__((noinline)) void never(int n) { printf("%d\n", n); }
int main(int argc, char **argv)
{
	(void)argv;
	for (int n = 0;; n++) {
		if (argc > 100)
			never(n);
		if (argc > 101)
			neither(n);
		usleep(700000);
	}
}
C
gcc -g -O1 -o debugged work.c
./debugged &
cat >commands <<'GDB'
set confirm off
set pagination off
break never
break neither
echo attached\n
continue
GDB
gdb -q -nx -x commands ./debugged $! >log 2>&1 &
while ! grep -q attached log; do sleep 0.2; done
stay
