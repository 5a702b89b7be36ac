# A server, a copy of it, clients that listen; snapshots by forked children.
mkdir /tmp/one /tmp/two
cd /tmp
redis-server --port 6379 --bind 127.0.0.1 --dir /tmp/one --appendonly yes --daemonize yes
redis-server --port 6380 --bind 127.0.0.1 --dir /tmp/two --replicaof 127.0.0.1 6379 --daemonize yes
cli() { redis-cli -p "$@"; }
for port in 6379 6380; do
    while ! cli $port ping >/dev/null 2>&1; do sleep 0.1; done
    cli $port subscribe news >/dev/null &
done
every 2 cli 6379 eval 'return redis.call("incr", KEYS[1])' 1 number
every 3 cli 6379 publish news hello
every 20 cli 6379 bgsave
stay
