"""`python -m sengu.server FD`: the server process. FD holds the boot document."""

import sys

from sengu.server.main import run

if __name__ == "__main__":
    sys.exit(run(int(sys.argv[1])))
