# A cluster with sessions that stay, one of them over TLS.
bin=$(echo /usr/lib/postgresql/*/bin)
data=/tmp/pg
install -d -o postgres -g postgres "$data" /run/postgresql
as() { su -s /bin/sh postgres -c "$1"; }
as "$bin/initdb -D $data --auth=trust >/dev/null"
cd /tmp
certificate
install -o postgres -m 600 key.pem "$data/server.key"
install -o postgres -m 600 cert.pem "$data/server.crt"
as "$bin/pg_ctl -D $data -w -l $data/log -o '-c ssl=on -c listen_addresses=127.0.0.1' start"
as "psql -q -v ON_ERROR_STOP=1 -c 'create extension pgcrypto'"
as "psql -q -v ON_ERROR_STOP=1 -c 'create table t as select n, md5(n::text) as h from generate_series(1, 20000) n'"
session() {
    while sleep 3; do
        echo 'select count(*), max(h) from t;'
        echo "select digest('a', 'sha256'), crypt('a', gen_salt('bf', 4));"
    done | psql "$1" >/dev/null &
}
for number in 1 2 3 4; do session 'host=/run/postgresql user=postgres'; done
session 'host=127.0.0.1 user=postgres sslmode=require'
every 5 psql -q 'host=127.0.0.1 user=postgres' -c 'update t set h = md5(h) where n < 50' -c 'vacuum t'
psql 'host=127.0.0.1 user=postgres sslmode=require' -c 'select version()'
stay
