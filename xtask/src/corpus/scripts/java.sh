# Compile, pack and run; both collectors, a child process, a native library unpacked by the program.
mkdir -p /tmp/tree
cd /tmp/tree
cat >Hello.java <<'EOF'
import java.nio.file.*;
import java.security.*;
import java.util.stream.*;

public class Hello {
    static { System.load("/tmp/tree/libown.so"); }
    static native int add(int a, int b);

    public static void main(String[] args) throws Exception {
        long sum = IntStream.range(0, 1_000_000).parallel().asLongStream().sum();
        KeyPairGenerator keys = KeyPairGenerator.getInstance("RSA");
        keys.initialize(2048);
        Process child = new ProcessBuilder("uname", "-r").start();
        System.out.print(new String(child.getInputStream().readAllBytes()));
        System.out.println(sum + " " + keys.generateKeyPair().getPublic().getAlgorithm() + " " + add(2, 3));
    }
}
EOF
cat >own.c <<EOF
#include <jni.h>
JNIEXPORT jint JNICALL Java_Hello_add(JNIEnv *e, jclass c, jint a, jint b) { return a + b; }
int round_ = $ROUND;
EOF
home=$(dirname "$(dirname "$(readlink -f "$(command -v javac)")")")
gcc -shared -fPIC -I"$home/include" -I"$home/include/linux" -o libown.so own.c
javac Hello.java
jar --create --file hello.jar --main-class Hello -C . Hello.class
java -jar hello.jar
java -XX:+UseSerialGC -Xshare:auto -jar hello.jar
