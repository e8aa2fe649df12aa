"""`python -m sengu.logwriter PATH [size=BYTES] [age=SECONDS] [keep=N] [compress]`: stdin to it."""

import sys

from sengu.logwriter.main import run

if __name__ == "__main__":
    sys.exit(run(sys.argv[1:]))
