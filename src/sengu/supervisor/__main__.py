"""Runs `main.py` beside it: `python -I -S PATH ARGUMENTS…`, of which that file tells.

As a module, as that is compiled only once for all: what a script is compiled with stays in the
memory of its process, 3 MB as long as it runs.
"""

import os
import sys

if __name__ == "__main__":
    sys.path.append(os.path.dirname(os.path.abspath(__file__)))
    sys.exit(__import__("main").main(sys.argv[1:]))
