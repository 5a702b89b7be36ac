# What compilers make: one program linked in every way, with a plugin, an IFUNC, threads and a forked
# child each; a server in Rust.
cd /tmp
cat >plugin.c <<C
#include <math.h>
int round_ = $ROUND;
double plugin(double x) { return sqrt(x) + round_; }
C
cat >work.c <<'C'
#define _GNU_SOURCE
#include <dlfcn.h>
#include <math.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <signal.h>
#include <unistd.h>

static double (*plugin)(double);

static int plain(int n) { return n + 1; }
#ifdef IFUNC
static int (*choose(void))(int) { return plain; }
int chosen(int) __attribute__((ifunc("choose")));
#else
static int chosen(int n) { return plain(n); }
#endif

static int order(const void *a, const void *b) { return *(const int *)a - *(const int *)b; }

static void *work(void *name)
{
	for (int n = 0;; n++) {
		int values[3] = {n % 7, n % 5, n % 3};
		char text[64];
		qsort(values, 3, sizeof *values, order);
		snprintf(text, sizeof text, "%s %f %d", (char *)name, plugin(n), chosen(values[0]));
		if (strlen(text) == 0)
			abort();
		usleep(500000);
	}
	return NULL;
}

int main(int argc, char **argv)
{
	pthread_t thread;
	(void)argc;
	plugin = sqrt;
#ifndef STATIC
	void *library = dlopen(PLUGIN, RTLD_LAZY | RTLD_LOCAL);
	if (!library)
		return puts(dlerror()), 1;
	*(void **)&plugin = dlsym(library, "plugin");
#endif
	if (fork() == 0)
		prctl(PR_SET_PDEATHSIG, SIGKILL);
	if (pthread_create(&thread, NULL, work, argv[0]))
		return 1;
	work(argv[0]);
	return 0;
}
C
gcc -shared -fPIC -o plugin.so plugin.c -lm
build() {
    name=$1
    shift
    gcc -O1 -DIFUNC -DPLUGIN='"/tmp/plugin.so"' "$@" -o "native-$name" work.c -lm -pthread
    "./native-$name" &
}
build now -Wl,-z,now,-z,relro
build lazy -Wl,-z,lazy,-z,norelro
build noplt -fno-plt
build nopie -no-pie
build static -static-pie -DSTATIC
build sysv -Wl,--hash-style=sysv,--no-as-needed -rdynamic
musl-gcc -shared -fPIC -o musl-plugin.so plugin.c
musl-gcc -O1 -DPLUGIN='"/tmp/musl-plugin.so"' -o native-musl work.c
./native-musl &
cat >serve.rs <<'RUST'
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
fn main() {
    let listener = TcpListener::bind("127.0.0.1:8001").unwrap();
    std::thread::spawn(|| loop {
        let mut text = String::new();
        TcpStream::connect("127.0.0.1:8001").unwrap().read_to_string(&mut text).unwrap();
        std::thread::sleep(std::time::Duration::from_millis(700));
    });
    for stream in listener.incoming() {
        write!(stream.unwrap(), "hello {}", env!("ROUND")).unwrap();
    }
}
RUST
rustc -O -o native-rust serve.rs
./native-rust &
sleep 1
test "$(pgrep -c native)" -eq 15
stay
