# What must be found, or the silence on everything else says nothing: a program that changes a slot of
# its own without a system call. What it imitates, and that it opens nothing, stands in its source.
cd /tmp
gcc -O1 -Wl,--build-id,-z,norelro,-z,lazy -o halfsecond-control control.c
mkfifo in
./halfsecond-control <in >out &
exec 3>in
echo now >&3
while ! grep -q rewired out; do sleep 0.1; done
stay
