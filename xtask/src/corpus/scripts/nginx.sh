# Plain and over TLS, a reload, an end.
cd /tmp
openssl req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=localhost \
    -addext subjectAltName=DNS:localhost -keyout key.pem -out cert.pem 2>/dev/null
mkdir -p www
echo hello >www/index.html
cat >nginx.conf <<'EOF'
user www-data;
worker_processes 2;
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
EOF
get() { curl -sS --fail --retry 20 --retry-connrefused --retry-delay 1 --cacert cert.pem "$1"; }
nginx -c /tmp/nginx.conf
get http://localhost:8080/ | grep -x hello
get https://localhost:8443/ | grep -x hello
nginx -c /tmp/nginx.conf -s reload
get https://localhost:8443/ | grep -x hello
nginx -c /tmp/nginx.conf -s quit
while [ -e /tmp/nginx.pid ]; do sleep 0.1; done
