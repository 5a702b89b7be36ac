"""Drives Frida for a test: attaches to the process of the argument, then obeys lines of input."""

import sys

import frida

SCRIPT = """
Interceptor.attach(Module.getGlobalExportByName('getppid'), { onEnter(args) {} });
"""

session = frida.attach(int(sys.argv[1]))
print("attached", flush=True)
script = None
for line in sys.stdin:
    if line.strip() == "hook":
        script = session.create_script(SCRIPT)
        script.load()
        print("hooked", flush=True)
    elif line.strip() == "detach":
        script.unload()
        session.detach()
        print("detached", flush=True)
