#!/usr/bin/env bash
# Compiles tests/fuzz/replay.cpp into the file that is named: it calls every operator of the built library (or of LIEROPE_LIBRARY) with
# numbered random bytes. LIEROPE_SANITIZE instruments it as it does the library.
set -euo pipefail
cd "$(dirname "$0")/.."
python=$(realpath -s "${PYTHON:-.venv/bin/python}")
torch=$("$python" -c 'import torch, pathlib; print(pathlib.Path(torch.__file__).parent)')
library=${LIEROPE_LIBRARY:-$PWD/python/lierope/liblierope_cpu.so}
# valgrind reads no DWARF 5. The library registers its operators when it is loaded, so it is needed though no symbol is.
"${CXX:-g++}" ${LIEROPE_SANITIZE:+"-fsanitize=$LIEROPE_SANITIZE"} -std=c++20 -O1 -gdwarf-4 -w \
  -isystem "$torch/include" -isystem "$torch/include/torch/csrc/api/include" \
  tests/fuzz/operators.cpp tests/fuzz/replay.cpp -o "$1" -L"$torch/lib" -ltorch -ltorch_cpu -lc10 -Wl,-rpath,"$torch/lib" \
  -Wl,--no-as-needed "$library" -Wl,-rpath,"$(dirname "$library")"
