# What the sensor must find, or its silence on everything else says nothing: a library of nobody's
# is preloaded into a program that has run often without. It only imitates an injected library:
# the file is a copy of Debian's zlib, and nothing calls it.
program=/tmp/control-$ROUND
cp /usr/bin/true "$program"
cp -L /lib/x86_64-linux-gnu/libz.so.1 /tmp/libcontrol.so
for start in $(seq 200); do "$program"; done
LD_PRELOAD=/tmp/libcontrol.so "$program"
