#!/bin/bash
# Usage: nvmlpy.sh FOLDER: puts NVIDIA's Python bindings of NVML into FOLDER, from PyPI; nothing is installed. The tests read
# our stand-in for the library with them too.
set -euo pipefail
folder=$1
if [ ! -f "$folder/pynvml.py" ]; then
    rm -rf "$folder"
    mkdir -p "$folder"
    log=$folder.log
    /usr/bin/python3 -m pip install --disable-pip-version-check --root-user-action ignore --no-compile --no-deps --target "$folder" \
        'nvidia-ml-py>=13.580,<14' >"$log" 2>&1 </dev/null ||
        { tail -n 5 "$log" >&2; rm -rf "$folder"; echo "martlet: pip cannot install nvidia-ml-py: is the network there? The log is $log" >&2; exit 1; }
fi
