# A cluster of its own, extensions, a query that forks workers, TLS.
bin=$(echo /usr/lib/postgresql/*/bin)
data=/tmp/pg
install -d -o postgres -g postgres "$data" /run/postgresql
as() { su -s /bin/sh postgres -c "$1"; }
as "$bin/initdb -D $data --auth=trust >/dev/null"
openssl req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=localhost -keyout "$data/server.key" \
    -out "$data/server.crt" 2>/dev/null
chown postgres "$data"/server.*
chmod 600 "$data/server.key"
as "$bin/pg_ctl -D $data -w -l $data/log -o '-c ssl=on -c listen_addresses=127.0.0.1' start"
as "psql -v ON_ERROR_STOP=1 -c 'create extension pgcrypto'"
as "psql -v ON_ERROR_STOP=1 -c 'create table t as select n, md5(n::text) as h from generate_series(1, 200000) n'"
as "psql -v ON_ERROR_STOP=1 -c 'set max_parallel_workers_per_gather = 2; set min_parallel_table_scan_size = 0; select count(*), max(h) from t'"
as "psql -v ON_ERROR_STOP=1 -c \"select digest('a', 'sha256'), crypt('a', gen_salt('bf'))\""
psql 'host=127.0.0.1 user=postgres sslmode=require' -c 'select version(), ssl from pg_stat_ssl where pid = pg_backend_pid()'
as "pg_dump postgres >/dev/null"
as "$bin/pg_ctl -D $data -w stop"
