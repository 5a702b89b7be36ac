# On a socket: values, a script, a snapshot by a forked child, an append-only file.
mkdir /tmp/redis
cd /tmp/redis
redis-server --port 0 --unixsocket /tmp/redis/socket --dir /tmp/redis --appendonly yes \
    --daemonize yes --pidfile /tmp/redis/pid --logfile /tmp/redis/log
cli() { redis-cli -s /tmp/redis/socket "$@"; }
while ! cli ping >/dev/null 2>&1; do sleep 0.1; done
for number in $(seq 20); do cli set "key$number" "$number" >/dev/null; done
cli get key20 | grep -x 20
cli eval 'return redis.call("incr", KEYS[1])' 1 key20 | grep -x 21
cli bgsave
cli bgrewriteaof
cli shutdown save || true
while [ -e /tmp/redis/pid ]; do sleep 0.1; done
