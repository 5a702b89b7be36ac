# Headless, with pages of several sites that keep working.
cd /tmp
cat >index.html <<'HTML'
<!doctype html><title>page</title><p id=p></p>
<script>
const work = 'let n = 0; setInterval(() => { for (let i = 0; i < 1e5; i++) n += Math.sqrt(i) }, 1000)';
new Worker(URL.createObjectURL(new Blob([work])));
const code = new Uint8Array([0,97,115,109,1,0,0,0,1,7,1,96,2,127,127,1,127,3,2,1,0,7,7,1,3,97,100,100,0,
  0,10,9,1,7,0,32,0,32,1,106,11]);
WebAssembly.instantiate(code).then(({ instance }) => setInterval(() => {
  document.getElementById('p').textContent = 'sum ' + instance.exports.add(2, 3) + Date.now();
  fetch('/index.html', { cache: 'no-store' });
}, 2000));
</script>
HTML
python3 -m http.server --bind 127.0.0.1 8000 2>/dev/null >/dev/null &
export HOME=/tmp/home XDG_RUNTIME_DIR=/tmp
mkdir -p /tmp/home
chromium --headless --no-sandbox --disable-gpu --no-first-run --user-data-dir=/tmp/profile \
    --remote-debugging-port=9222 --host-resolver-rules='MAP *.localhost 127.0.0.1' about:blank \
    >/tmp/log 2>&1 &
curl -sS --fail --retry 120 --retry-connrefused --retry-delay 1 http://127.0.0.1:9222/json/version
for site in one two three four five; do
    curl -sS --fail -X PUT "http://127.0.0.1:9222/json/new?http://$site.localhost:8000/index.html"
done
every 5 curl -sS --fail http://127.0.0.1:9222/json/list
stay
