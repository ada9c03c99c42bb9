"""qmp_gate.py MONITOR SOCKET PROCESS: stands between Turntable and a QEMU that waits, and keeps the machine from running.

Everything passes but `cont`, which it answers itself: so the memory of a machine that ran at the source can be compared at
the target before its first instruction there. It holds QEMU's memory files, since Turntable looks for them in the process
behind the monitor.
"""
import os
import socket
import sys
import threading

monitor_path, path, process = sys.argv[1:4]
directory = f"/proc/{process}/fd"
held = [
    os.open(f"{directory}/{entry}", os.O_RDWR) for entry in os.listdir(directory) if os.readlink(f"{directory}/{entry}").startswith("/memfd:turntable:")]

listener = socket.socket(socket.AF_UNIX)
listener.bind(path)
listener.listen(1)
print('{"event": "ready"}', flush=True)
client, _ = listener.accept()
monitor = socket.socket(socket.AF_UNIX)
monitor.connect(monitor_path)


def answers():
    while data := monitor.recv(65536):
        client.sendall(data)
    client.shutdown(socket.SHUT_RDWR)


threading.Thread(target=answers, daemon=True).start()
for line in client.makefile("rb"):
    if b'"cont"' in line:
        client.sendall(b'{"return": {}}\n')
        print('{"event": "held"}', flush=True)
    else:
        monitor.sendall(line)
# Turntable is done. The machine stays where it is until the test ends this process.
threading.Event().wait()
