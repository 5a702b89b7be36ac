# A local page with a script, rendered without a display.
cat >/tmp/page.html <<'EOF'
<!doctype html><title>page</title><p id=p></p>
<script>document.getElementById('p').textContent = 'sum ' + [1, 2, 3].reduce((a, b) => a + b)</script>
EOF
export HOME=/tmp/home XDG_RUNTIME_DIR=/tmp
mkdir -p /tmp/home
chromium --headless --no-sandbox --disable-gpu --no-first-run --user-data-dir=/tmp/profile \
    --dump-dom file:///tmp/page.html 2>/tmp/log >/tmp/dom || { tail -20 /tmp/log; exit 1; }
grep 'sum 6' /tmp/dom
