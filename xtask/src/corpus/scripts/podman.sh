# The same Debian as a container of podman's. Exit 77: this host cannot run any.
cd /tmp
cgroup=halfsecond-corpus-podman
# It leaves its cgroup behind, which is the host's.
trap 'find /sys/fs/cgroup -depth -type d -path "*/$cgroup*" -exec rmdir {} +' EXIT
run() {
    podman --root /tmp/storage --runroot /tmp/runroot --cgroup-manager=cgroupfs --runtime=runc \
        --events-backend=none --storage-driver=vfs \
        run --rm --cgroup-parent=/$cgroup --network=none --ulimit nofile=1024:1024 --ulimit nproc=1024:1024 "$@"
}
if ! run --rootfs /srv/minbase /bin/true 2>err; then
    tail -1 err
    exit 77
fi
run --rootfs /srv/minbase /bin/sh -c 'id; perl -e "print 6 * 7, qq(\n)"; ls / | sort' | tee out
grep -qx 42 out
