# A container with glibc, and one with musl and a program linked against it.
mkdir -p /tmp/glibc /tmp/musl/rootfs/bin /tmp/musl/rootfs/lib
cd /tmp
cat >main.c <<'C'
#include <dlfcn.h>
#include <stdio.h>
#include <unistd.h>
int main(void)
{
	if (!dlopen("/lib/libown.so", RTLD_NOW))
		return 1;
	for (;;) {
		puts("hello from musl");
		fflush(stdout);
		sleep(1);
	}
}
C
echo "int own = $ROUND;" >own.c
musl-gcc -o musl/rootfs/bin/main main.c
musl-gcc -shared -fPIC -o musl/rootfs/lib/libown.so own.c
cp -L /lib/ld-musl-x86_64.so.1 musl/rootfs/lib/
cp /bin/busybox musl/rootfs/bin/sh

# container NAME BUNDLE ROOTFS COMMAND
container() {
    cd "$2"
    runc spec
    python3 - "$3" "$4" <<'PYTHON'
import json, sys
with open("config.json") as file:
    config = json.load(file)
config["process"].update(terminal=False, args=["/bin/sh", "-c", sys.argv[2]])
# Limits beyond the caller's own are refused where the caller may not raise them.
config["process"].pop("rlimits", None)
config["root"] = {"path": sys.argv[1], "readonly": True}
with open("config.json", "w") as file:
    json.dump(config, file)
PYTHON
    runc run "halfsecond-corpus-$1-$ROUND" >"/tmp/$1.out" 2>&1 &
    cd /tmp
}
container glibc /tmp/glibc /srv/minbase \
    'echo up; perl -e "while (1) { select undef, undef, undef, 1 }" & while sleep 2; do id; done'
container musl /tmp/musl rootfs 'echo up; /bin/main'
for name in glibc musl; do
    while ! grep -qx up $name.out; do
        pgrep runc >/dev/null || { cat $name.out; exit 1; }
        sleep 0.2
    done
done
stay
# They leave their cgroups to the host otherwise.
for name in glibc musl; do runc delete --force "halfsecond-corpus-$name-$ROUND"; done
