#!/usr/bin/env bash
# Calls every operator with random arguments under valgrind, which sees reads of memory that was never written.
set -euo pipefail
cd "$(dirname "$0")/.."
python=$(realpath -s "${PYTHON:-.venv/bin/python}")
cxx=${CLANG:-$(command -v clang++ clang++-19 clang++-18 clang++-17 | head -1 || true)}
if [ -z "$cxx" ] || ! command -v valgrind > /dev/null; then echo "valgrind: needs valgrind and clang++ with compiler-rt's headers (Debian: valgrind clang-19 libclang-rt-19-dev)" >&2; exit 2; fi
work=build/valgrind; mkdir -p "$work"
torch=$("$python" -c 'import torch, pathlib; print(pathlib.Path(torch.__file__).parent)')
library=$PWD/python/lierope
"$cxx" -std=c++20 -O1 -gdwarf-4 -Wno-everything -isystem "$torch/include" -isystem "$torch/include/torch/csrc/api/include" \
  tests/fuzz/operators.cpp tests/fuzz/replay.cpp -o "$work/replay" -L"$torch/lib" -ltorch -ltorch_cpu -lc10 \
  -Wl,-rpath,"$torch/lib" -Wl,--no-as-needed "$library/liblierope_cpu.so" -Wl,-rpath,"$library"
# valgrind knows no AVX-512. Errors count where our library is on the stack; torch's own start-up is suppressed by name.
for isa in ${LIEROPE_ISA:-avx2 baseline}; do
  echo "== $isa"
  LIEROPE_ISA=$isa OMP_NUM_THREADS=1 valgrind -q --error-exitcode=9 --leak-check=no --track-origins=no \
    --suppressions=tests/fuzz/torch.supp "$work/replay" "${CALLS:-200}"
done
