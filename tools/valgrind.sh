#!/usr/bin/env bash
# Calls every operator with random arguments under valgrind, which sees reads of memory that was never written.
set -euo pipefail
cd "$(dirname "$0")/.."
python=$(realpath -s "${PYTHON:-.venv/bin/python}")
if ! command -v valgrind > /dev/null; then echo "valgrind: not found (Debian: valgrind)" >&2; exit 2; fi
work=build/valgrind; mkdir -p "$work"
PYTHON=$python bash tools/replay.sh "$work/replay"
# valgrind knows no AVX-512. Errors count where our library is on the stack; torch's own start-up is suppressed by name.
for isa in ${LIEROPE_ISA:-avx2 baseline}; do
  echo "== $isa"
  LIEROPE_ISA=$isa OMP_NUM_THREADS=1 valgrind -q --error-exitcode=9 --leak-check=no --track-origins=no \
    --suppressions=tests/fuzz/torch.supp "$work/replay" "${CALLS:-200}"
done
