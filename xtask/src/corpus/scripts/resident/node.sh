# A cluster that asks itself over TLS, with worker threads.
cd /tmp
certificate
cat >serve.js <<'JS'
const cluster = require('cluster'), fs = require('fs'), https = require('https'), zlib = require('zlib');
const { Worker } = require('worker_threads');
const key = fs.readFileSync('key.pem'), cert = fs.readFileSync('cert.pem');
if (cluster.isPrimary) {
  let up = 0;
  for (let i = 0; i < 4; i++) cluster.fork();
  cluster.on('listening', () => {
    if (++up < 4) return;
    setInterval(ask, 500);
    fs.writeFileSync('up', '');
  });
  cluster.on('exit', () => { console.log('failed: a worker ended'); process.exit(1); });
  const ask = () => {
    https.get({ host: '127.0.0.1', port: 8443, ca: cert, servername: 'localhost', agent: false },
      (answer) => answer.resume()).on('error', (error) => console.log('failed: ' + error));
  };
} else {
  new Worker('let n = 0; setInterval(() => { for (let i = 0; i < 1e5; i++) n += Math.sqrt(i) }, 1000)',
    { eval: true });
  https.createServer({ key, cert }, (_, answer) => answer.end(zlib.gzipSync('hello'.repeat(1000))))
    .listen(8443, '127.0.0.1');
}
JS
node serve.js &
while ! [ -e up ]; do sleep 0.2; done
stay
