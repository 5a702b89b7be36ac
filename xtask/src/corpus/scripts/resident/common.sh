# For every script of this folder, in front of it.

# every SECONDS COMMAND...: in the background, for as long as the script runs; a failure is told.
every() {
    seconds=$1
    shift
    while sleep "$seconds"; do
        "$@" >/dev/null 2>&1 || echo "failed: $*"
    done &
}

# Everything runs: say so, and stay until the input ends.
stay() {
    echo resident: ready
    cat >/dev/null
}

# key and certificate of localhost, in the current directory
certificate() {
    openssl req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=localhost \
        -addext subjectAltName=DNS:localhost -keyout key.pem -out cert.pem 2>/dev/null
}
