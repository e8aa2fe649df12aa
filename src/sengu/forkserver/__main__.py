"""`python -m sengu.forkserver FD [ROOM]`: FD is the socket to the server.

ROOM is blank: the process title is written over the arguments.
"""

import socket
import sys

from sengu.forkserver.main import run

if __name__ == "__main__":
    sys.exit(run(socket.socket(fileno=int(sys.argv[1]))))
