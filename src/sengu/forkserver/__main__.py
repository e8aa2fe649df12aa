"""`python -m sengu.forkserver FD [ROOM]`: FD is the socket to the server.

ROOM is blank: the process title is written over the arguments.
"""

import os
import socket
import sys
import traceback

from sengu.forkserver.main import run

if __name__ == "__main__":
    status = 1
    try:
        status = run(socket.socket(fileno=int(sys.argv[1])))
    except Exception:  # the last frame: nobody else would tell
        traceback.print_exc()
    finally:
        # At once: a thread that the application has started might not end, and so keep us.
        os._exit(status)
