# numpy, extension modules, subprocesses, a virtual environment, a library of one's own.
cd /tmp
cat >work.py <<'EOF'
import ctypes, hashlib, json, multiprocessing, sqlite3, ssl, subprocess, zlib
import numpy as np

def square(n):
    return int((np.arange(n, dtype=np.int64) ** 2).sum())

if __name__ == "__main__":
    a = np.random.default_rng(1).normal(size=(200, 200))
    values = np.linalg.eigvalsh(a @ a.T)
    assert values.min() > 0
    print(np.abs(np.fft.fft(a[0])).max())
    with multiprocessing.Pool(2) as pool:
        print(pool.map(square, range(100, 110)))
    db = sqlite3.connect("/tmp/work.db")
    db.execute("create table t (x)")
    db.executemany("insert into t values (?)", [(n,) for n in range(1000)])
    print(db.execute("select sum(x) from t").fetchone(), ssl.OPENSSL_VERSION)
    print(hashlib.sha256(zlib.compress(json.dumps(values.tolist()).encode())).hexdigest())
    print(subprocess.run(["uname", "-r"], capture_output=True, text=True, check=True).stdout)
    own = ctypes.CDLL("/tmp/libown.so")
    assert own.add(2, 3) == 5
EOF
printf 'int add(int a, int b) { return a + b; }\nint round_ = %s;\n' "$ROUND" >own.c
gcc -shared -fPIC -o libown.so own.c
python3 work.py
python3 -m venv --without-pip --system-site-packages /tmp/venv
/tmp/venv/bin/python -c 'import numpy, sys; print(sys.prefix, numpy.__version__)'
