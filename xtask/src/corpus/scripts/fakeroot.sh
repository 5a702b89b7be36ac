# A package built as an ordinary user who is told that he is root.
cat >/tmp/build.sh <<'EOF'
set -eu
mkdir -p /tmp/tree/DEBIAN /tmp/tree/usr/share/tiny
cp /bin/true /tmp/tree/usr/share/tiny/true
chown -R root:root /tmp/tree
stat -c %U /tmp/tree/usr/share/tiny/true | grep -x root
printf 'Package: tiny\nVersion: 1\nArchitecture: all\nMaintainer: a <a@localhost>\nDescription: a\n' \
    >/tmp/tree/DEBIAN/control
dpkg-deb -b /tmp/tree /tmp/tiny.deb
tar -C /tmp/tree -cf /tmp/tree.tar .
tar -tvf /tmp/tree.tar
EOF
su -s /bin/sh nobody -c 'fakeroot sh /tmp/build.sh'
fakeroot sh -c 'mknod /tmp/device c 1 3; ls -l /tmp/device'
