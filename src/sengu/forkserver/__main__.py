"""`python -m sengu.forkserver FD BIRTHS [ROOM]`: the sockets to the server, and to the supervisor.

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
        status = run(*(socket.socket(fileno=int(number)) for number in sys.argv[1:3]))
    except Exception:  # the last frame: nobody else would tell
        traceback.print_exc()
    finally:
        # At once: a thread that the application has started might not end, and so keep us.
        os._exit(status)
