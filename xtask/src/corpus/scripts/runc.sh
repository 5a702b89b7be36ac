# A container with glibc, and one with musl and a program linked against it.
mkdir -p /tmp/glibc /tmp/musl/rootfs/bin /tmp/musl/rootfs/lib
cd /tmp
printf '#include <stdio.h>\n#include <dlfcn.h>\nint main(void) { puts("hello from musl"); return !dlopen("/lib/libown.so", RTLD_NOW); }\n' >main.c
echo "int own = $ROUND;" >own.c
musl-gcc -o musl/rootfs/bin/main main.c
musl-gcc -shared -fPIC -o musl/rootfs/lib/libown.so own.c
cp -L /lib/ld-musl-x86_64.so.1 musl/rootfs/lib/
cp /bin/busybox musl/rootfs/bin/sh

# container NAME BUNDLE ROOTFS COMMAND
container() {
    cd "$2"
    runc spec
    python3 - "$3" "$4" <<'EOF'
import json, sys
with open("config.json") as file:
    config = json.load(file)
config["process"].update(terminal=False, args=["/bin/sh", "-c", sys.argv[2]])
# Limits beyond the caller's own are refused where the caller may not raise them.
config["process"].pop("rlimits", None)
config["root"] = {"path": sys.argv[1], "readonly": True}
with open("config.json", "w") as file:
    json.dump(config, file)
EOF
    runc run "halfsecond-corpus-$1-$ROUND"
    cd /tmp
}
container glibc /tmp/glibc /srv/minbase \
    'id; perl -e "print 6 * 7, qq(\n)"; dpkg -l | tail -1; ls / | sort; cat /proc/self/cgroup'
container musl /tmp/musl rootfs '/bin/main && echo done' | tee out
grep -qx 'hello from musl' out
grep -qx done out
