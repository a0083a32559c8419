#!/bin/bash
# make soak: all tests with their loops at full count, and more of them in the machine; the log is .build/soak.log.
set -uo pipefail
cd "$(dirname "$0")/.."
echo "Soak: one to three hours; the log is .build/soak.log"
mkdir -p .build
export MARTLET_SOAK=1 MARTLET_SIM_RUNS=${MARTLET_SIM_RUNS:-2000} MARTLET_TIER_TIMEOUT=${MARTLET_TIER_TIMEOUT:-6h}
export MARTLET_MACHINE_TIMEOUT=${MARTLET_MACHINE_TIMEOUT:-3h}
scripts/test.sh 2>&1 | tee .build/soak.log
exit "${PIPESTATUS[0]}"
