# Workers, child processes, zlib and TLS.
cd /tmp
openssl req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=localhost -keyout key.pem \
    -out cert.pem 2>/dev/null
cat >work.js <<'EOF'
const { Worker, isMainThread, parentPort } = require('worker_threads');
if (!isMainThread) {
  let sum = 0;
  for (let i = 0; i < 5e6; i++) sum += Math.sqrt(i);
  parentPort.postMessage(sum);
} else {
  const fs = require('fs'), https = require('https'), zlib = require('zlib');
  const { execFileSync } = require('child_process');
  console.log(execFileSync('uname', ['-r']).toString().trim());
  console.log(zlib.gzipSync(Buffer.alloc(1e6)).length);
  const key = fs.readFileSync('key.pem'), cert = fs.readFileSync('cert.pem');
  const server = https.createServer({ key, cert }, (_, answer) => answer.end('hello'));
  const worker = new Worker(__filename);
  worker.on('message', (sum) => {
    console.log(sum);
    server.listen(0, '127.0.0.1', () => {
      https.get({ host: '127.0.0.1', port: server.address().port, ca: cert,
                  servername: 'localhost', agent: false }, (answer) => {
        answer.on('data', (data) => console.log(data.toString()));
        answer.on('end', () => server.close());
      });
    });
  });
}
EOF
node work.js | tee out
grep -qx hello out
