#!/bin/bash
# fakenvml.sh OUTPUT [SYMBOLS]: compiles the libnvidia-ml.so.1 of the tests, see Tests/FakeNVML/fakenvml.c for SYMBOLS.
set -euo pipefail
root=$(cd "$(dirname "$0")/.." && pwd)
exec clang -Wall -Wextra -Werror -std=gnu17 -shared -fPIC -fvisibility=hidden -Wl,-soname,libnvidia-ml.so.1 \
    -I"$root/CShims/CNVML/include" -D"${2:-ALL_SYMBOLS}" -o "$1" "$root/Tests/FakeNVML/fakenvml.c"
