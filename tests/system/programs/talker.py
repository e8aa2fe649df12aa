"""A worker that writes lines of random length as fast as it can, and then says that it is ready.

`talker.py COUNT GO`: each line is `L PID NUMBER LENGTH` and so many letters. It begins when whoever
listens on the socket `GO` closes the connection.
"""

import os
import random
import signal
import socket
import sys

count, pid = int(sys.argv[1]), os.getpid()
chance = random.Random(pid)
letters = bytes(chance.choices(b"abcdefghijklmnopqrstuvwxyz", k=400))
with socket.socket(socket.AF_UNIX) as go:
    go.connect(sys.argv[2])
    go.recv(1)
for number in range(count):
    length = chance.randrange(20, 300) if number % 1000 else 6000
    text = letters * 15 if length > len(letters) else letters
    line = b"L %d %d %d %s\n" % (pid, number, length, text[:length])
    assert os.write(1 + number % 2, line) == len(line)
with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as link:
    link.connect(os.environ["NOTIFY_SOCKET"].replace("@", "\0", 1))
    link.send(b"READY=1")
signal.sigwait({signal.SIGTERM})
