#!/bin/sh
# Prints the first Python from 3.11 to 3.13 that really runs (a shim of a version manager may exist and not run).
for name in python3.11 python3.12 python3.13 python3 python; do
    found=$("$name" -c '
import sys
if (3, 11) <= sys.version_info[:2] <= (3, 13):
    import ensurepip, ssl, venv
    print(sys.executable)
' 2>/dev/null) || continue
    if [ -n "$found" ]; then
        echo "$found"
        exit 0
    fi
done
echo "No Python 3.11, 3.12 or 3.13 with its venv module was found on PATH." >&2
echo "Install one (Debian and Ubuntu: apt install python3 python3-venv), or name one: make PYTHON=/path/to/python3.12" >&2
exit 1
