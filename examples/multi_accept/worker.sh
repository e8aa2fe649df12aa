#!/bin/sh
# Becomes another program, as run scripts do: descriptors, environment and pid
# survive exec, so whoever started us never knows.
#
#   ./worker.sh worker.pl
exec "$(dirname "$0")/${1:-worker.py}"
