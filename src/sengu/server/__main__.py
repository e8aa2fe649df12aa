"""`python -m sengu.server FD [ROOM]`: the server process. FD is the socket to the supervisor.

ROOM is blank: the process title is written over the arguments.
"""

import sys

from sengu.server.main import run

if __name__ == "__main__":
    sys.exit(run(int(sys.argv[1])))
