"""`python -m sengu.server FD [ROOM]`: the server process. FD holds the boot document.

ROOM is blank: the process title is written over the arguments.
"""

import sys

from sengu.server.main import run

if __name__ == "__main__":
    sys.exit(run(int(sys.argv[1])))
