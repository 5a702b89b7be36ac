# Twenty packages with programs and libraries, installed, upgraded to builds nobody has seen
# before, and purged; a few of Debian's own reinstalled over themselves.
cd /tmp
repo=/tmp/repo
mkdir -p "$repo"
serial=$ROUND
# What an interrupted run left.
dpkg --configure -a
left=$(dpkg-query -W -f '${Package}\n' 'tiny*' 2>/dev/null) || left=
[ -z "$left" ] || dpkg --purge $left

# package NUMBER VERSION: a library, a program that needs it and its neighbour's, and a postinst
# that runs the program. Programs do not change with the version, libraries do.
package() {
    name=tiny$1 tree=/tmp/tree/$1-$2
    lib=$tree/usr/lib/x86_64-linux-gnu bin=$tree/usr/bin
    mkdir -p "$lib" "$bin" "$tree/DEBIAN"
    # ldconfig remembers sonames by inode, second of the change and size: a library that gets the inode of
    # one purged within the second needs another size, here by a longer name.
    printf 'const char *%s(void) { return "%s %s %s"; }\nint x%0*d;\n' \
        "$name" "$name" "$2" "$serial" $((8 * $1)) 0 >lib.c
    gcc -O1 -shared -fPIC -Wl,-soname,"lib$name.so.1" -o "$lib/lib$name.so.1.$2" lib.c
    ln -s "lib$name.so.1.$2" "$lib/lib$name.so.1"
    before=$(($1 - 1)) also= depends=libc6
    if [ "$before" -gt 0 ]; then
        also=/tmp/tree/$before-$2/usr/lib/x86_64-linux-gnu/libtiny$before.so.1
        depends="libc6, tiny$before"
        printf 'const char *tiny%s(void);\n#define ALSO puts(tiny%s())\n' "$before" "$before"
    else
        printf '#define ALSO 0\n'
    fi >main.c
    printf '#include <stdio.h>\nconst char *%s(void);\n' "$name" >>main.c
    printf 'int main(void) { puts(%s()); ALSO; return 0; }\n' "$name" >>main.c
    gcc -O1 -o "$bin/$name" main.c "$lib/lib$name.so.1" $also
    cat >"$tree/DEBIAN/control" <<EOF
Package: $name
Version: $2
Architecture: amd64
Maintainer: Nobody <nobody@localhost>
Depends: $depends
Description: a library and a program
EOF
    echo 'activate-noawait ldconfig' >"$tree/DEBIAN/triggers"
    printf '#!/bin/sh\nset -e\nldconfig\n%s >/dev/null\n' "$name" >"$tree/DEBIAN/postinst"
    chmod 755 "$tree/DEBIAN/postinst"
    dpkg-deb --root-owner-group -Znone -b "$tree" "$repo/${name}_$2.deb" >/dev/null
}

# What apt needs to know of the packages of a version.
index() {
    for deb in "$repo"/*_"$1".deb; do
        dpkg-deb -f "$deb"
        echo "Filename: ./${deb##*/}"
        echo "Size: $(stat -c %s "$deb")"
        echo "SHA256: $(sha256sum "$deb" | cut -d' ' -f1)"
        echo
    done >"$repo/Packages"
}

local_apt() {
    apt-get -q -y -o APT::Sandbox::User=root -o Dir::Etc::SourceList=/tmp/tiny.list \
        -o Dir::Etc::SourceParts=/nonexistent -o Dir::State::Lists=/tmp/lists "$@"
}

tiny=
for number in $(seq 20); do
    package "$number" 1
    package "$number" 2
    tiny="$tiny tiny$number"
done
echo "deb [trusted=yes] file:$repo ./" >tiny.list
mkdir -p lists/partial

index 1
local_apt update
local_apt install $tiny
tiny20 | grep "tiny20 1 $serial"
index 2
local_apt update
local_apt upgrade
tiny20 | grep "tiny20 2 $serial"
dpkg -l 'tiny*' | grep -c '^ii  tiny[0-9]* *2 ' | grep -x 20
local_apt purge $tiny

apt-get -q -y purge faketime libfaketime
apt-get -q -y --no-download --reinstall install $(cat /corpus/reinstall)
dpkg --audit
