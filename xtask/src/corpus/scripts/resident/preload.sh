# Libraries in front of others: an allocator, another date, another user, a sanitizer; valgrind.
cd /tmp
jemalloc=$(echo /usr/lib/*/libjemalloc.so.2)
LD_PRELOAD=$jemalloc MALLOC_CONF=background_thread:true python3 -c 'import time
while True:
    sum(len(str(n)) for n in range(1000)); time.sleep(1)' &
LD_PRELOAD=libjemalloc.so.2 perl -e 'while (1) { my %h = map { $_ => 1 } 1 .. 1000; sleep 1 }' &
LD_PRELOAD=$jemalloc node -e 'setInterval(() => "x".repeat(1000), 500)' &
faketime '2020-01-01 00:00:00' perl -e 'while (1) { sleep 1 }' &
faketime -f '-1d' python3 -c 'import time
while True: time.sleep(1)' &
fakeroot sh -c 'while sleep 2; do chown 1 /tmp/owned; done' &
touch owned
cat >work.c <<'C'
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
int main(void)
{
	for (;;) {
		char *text = strdup("hello");
		if (!text || strlen(text) != 5)
			return 1;
		free(text);
		sleep(1);
	}
}
C
gcc -g -fsanitize=address -o sanitized work.c
ASAN_OPTIONS=detect_leaks=0 ./sanitized &
ASAN_OPTIONS=detect_leaks=0 LD_PRELOAD=$(gcc -print-file-name=libasan.so) python3 -c 'import time
while True: time.sleep(1)' &
gcc -g -fsanitize=undefined,thread -o raced work.c
# Its memory has no room where addresses are chosen at random from more bits.
setarch -R ./raced &
gcc -g -o plain work.c
valgrind -q ./plain &
for name in sanitized raced memcheck faked; do
    while ! pgrep "$name" >/dev/null; do sleep 0.2; done
done
stay
