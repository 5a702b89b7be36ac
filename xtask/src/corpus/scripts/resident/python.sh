# numpy in a pool of processes, a server with TLS, a library of one's own, a virtual environment.
cd /tmp
certificate
cat >work.py <<'PYTHON'
import ctypes, hashlib, http.server, json, multiprocessing, sqlite3, ssl, threading, time, urllib.request, zlib
import numpy as np

def square(n):
    a = np.random.default_rng(n).normal(size=(60, 60))
    return float(np.linalg.eigvalsh(a @ a.T).max())

if __name__ == "__main__":
    multiprocessing.set_start_method("forkserver")
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 8443), http.server.SimpleHTTPRequestHandler)
    server.RequestHandlerClass.log_message = lambda *_: None
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain("cert.pem", "key.pem")
    server.socket = context.wrap_socket(server.socket, server_side=True)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    own = ctypes.CDLL("/tmp/libown.so")
    trust = ssl.create_default_context(cafile="cert.pem")
    db = sqlite3.connect("/tmp/work.db")
    db.execute("create table t (x)")
    with multiprocessing.Pool(4) as pool:
        while True:
            values = pool.map(square, range(8))
            db.execute("insert into t values (?)", (own.add(2, 3),))
            db.commit()
            urllib.request.urlopen("https://localhost:8443/work.py", context=trust).read()
            hashlib.sha256(zlib.compress(json.dumps(values).encode())).hexdigest()
            open("/tmp/up", "w").close()
            time.sleep(2)
PYTHON
printf 'int add(int a, int b) { return a + b; }\nint round_ = %s;\n' "$ROUND" >own.c
gcc -shared -fPIC -o libown.so own.c
python3 work.py &
python3 -m venv --without-pip --system-site-packages /tmp/venv
/tmp/venv/bin/python -c 'import time, numpy as np
while True:
    np.fft.fft(np.ones(1000)); time.sleep(1)' &
while ! [ -e up ]; do sleep 0.2; done
stay
