# Four workers, asked plain and over TLS.
cd /tmp
certificate
mkdir -p www
echo hello >www/index.html
cat >nginx.conf <<'CONF'
user www-data;
worker_processes 4;
pid /tmp/nginx.pid;
error_log /tmp/error.log;
include /etc/nginx/modules-enabled/*.conf;
events {}
http {
    access_log /tmp/access.log;
    server {
        listen 127.0.0.1:8080;
        listen 127.0.0.1:8443 ssl;
        ssl_certificate /tmp/cert.pem;
        ssl_certificate_key /tmp/key.pem;
        root /tmp/www;
    }
}
CONF
nginx -c /tmp/nginx.conf
get() { curl -sS --fail --retry 20 --retry-connrefused --retry-delay 1 --cacert cert.pem "$1"; }
get http://localhost:8080/ | grep -x hello
get https://localhost:8443/ | grep -x hello
every 2 get http://localhost:8080/
every 2 get https://localhost:8443/
stay
