# Another allocator for programs that did not ask for one, in both usual ways.
jemalloc=$(echo /usr/lib/*/libjemalloc.so.2)
LD_PRELOAD=$jemalloc python3 -c 'print(sum(len(str(n)) for n in range(100000)))'
LD_PRELOAD=libjemalloc.so.2 perl -e 'my %h = map { $_ => 1 } 1 .. 100000; print scalar keys %h, "\n"'
export LD_PRELOAD=$jemalloc MALLOC_CONF=background_thread:true
seq 100000 | sort -R | sort -n | tail -1
find /usr/lib -name '*.so*' | xargs ls -l | awk '{ sum += $5 } END { print sum }'
node -e 'console.log("node with jemalloc")'
