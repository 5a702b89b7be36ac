# PID 1 of a workload's namespaces: chamber.sh ROOT SECONDS SCRIPT
#
# Everything mounted here goes away with the mount namespace, and everything started here with
# the PID namespace, however this ends. The root stays writable: package managers need it.
set -eu
root=$1 seconds=$2 script=$3

# A mount point of its own: runc exchanges it for the container's root.
mount --bind "$root" "$root"
mount -t proc proc "$root/proc"
mount -t sysfs sysfs "$root/sys"
mount --rbind /sys/fs/cgroup "$root/sys/fs/cgroup"
mount -t tmpfs -o mode=1777 tmpfs "$root/tmp"
mount -t tmpfs -o mode=755 tmpfs "$root/run"
mount -t tmpfs -o mode=755 tmpfs "$root/dev"
for device in null zero full random urandom tty; do
    : >"$root/dev/$device"
    mount --bind "/dev/$device" "$root/dev/$device"
done
mkdir -m 1777 "$root/dev/shm" "$root/dev/mqueue"
mkdir "$root/dev/pts"
mount -t tmpfs -o mode=1777 tmpfs "$root/dev/shm"
mount -t devpts -o newinstance,ptmxmode=0666 devpts "$root/dev/pts"
ln -s pts/ptmx "$root/dev/ptmx"
ln -s /proc/self/fd "$root/dev/fd"
ln -s /proc/self/fd/0 "$root/dev/stdin"
ln -s /proc/self/fd/1 "$root/dev/stdout"
ln -s /proc/self/fd/2 "$root/dev/stderr"

# A network namespace of our own has nothing but a loopback interface, and that is down.
if [ "$(ls "$root/sys/class/net")" = lo ]; then
    chroot "$root" ip link set lo up
fi

# Not exec: this shell reaps what daemons leave behind.
chroot "$root" /usr/bin/env -i PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin \
    HOME=/root TMPDIR=/tmp LC_ALL=C.UTF-8 DEBIAN_FRONTEND=noninteractive ROUND="$ROUND" \
    timeout --kill-after=5 "$seconds" /bin/sh -eu "$script"
