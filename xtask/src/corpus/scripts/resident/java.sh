# A server for each collector, with a native library unpacked by the program.
mkdir -p /tmp/tree
cd /tmp/tree
cat >Serve.java <<'JAVA'
import com.sun.net.httpserver.HttpServer;
import java.net.*;
import java.nio.file.*;
import java.security.*;
import java.util.stream.*;

public class Serve {
    static { System.load("/tmp/tree/libown.so"); }
    static native int add(int a, int b);

    public static void main(String[] args) throws Exception {
        HttpServer server = HttpServer.create(new InetSocketAddress("127.0.0.1", 0), 0);
        server.createContext("/", exchange -> {
            byte[] answer = ("hello " + add(2, 3)).getBytes();
            exchange.sendResponseHeaders(200, answer.length);
            exchange.getResponseBody().write(answer);
            exchange.close();
        });
        server.start();
        URL url = new URL("http://127.0.0.1:" + server.getAddress().getPort() + "/");
        for (int round = 0; ; round++) {
            new String(url.openStream().readAllBytes());
            IntStream.range(0, 100_000).parallel().asLongStream().sum();
            MessageDigest.getInstance("SHA-256").digest(new byte[1000]);
            if (round == 0) Files.createFile(Path.of("/tmp/tree/up-" + args[0]));
            Thread.sleep(1000);
        }
    }
}
JAVA
cat >own.c <<C
#include <jni.h>
JNIEXPORT jint JNICALL Java_Serve_add(JNIEnv *e, jclass c, jint a, jint b) { return a + b; }
int round_ = $ROUND;
C
home=$(dirname "$(dirname "$(readlink -f "$(command -v javac)")")")
gcc -shared -fPIC -I"$home/include" -I"$home/include/linux" -o libown.so own.c
javac Serve.java
for collector in Serial G1 Parallel Z; do
    java "-XX:+Use${collector}GC" -Xmx128m -cp . Serve $collector &
    while ! [ -e up-$collector ]; do sleep 0.2; done
done
stay
