#!/usr/bin/env bash
# Builds the library with AddressSanitizer and UndefinedBehaviorSanitizer and runs the operator tests under both.
set -euo pipefail
cd "$(dirname "$0")/.."
python=$(realpath -s "${PYTHON:-.venv/bin/python}")
work=build/sanitized; rm -rf "$work"; mkdir -p "$work"
cp -r python/lierope "$work/lierope"
LIEROPE_SANITIZE=address,undefined "$python" setup.py -q build_ext --build-lib "$work"
cxx=${CXX:-g++}
preload=$(for name in libasan libubsan libstdc++; do "$cxx" -print-file-name="$name.so"; done | paste -sd:)
export PYTHONPATH=$PWD/$work LIEROPE_ALLOW_STALE=1 OMP_NUM_THREADS=2
export ASAN_OPTIONS=detect_leaks=0:protect_shadow_gap=0 UBSAN_OPTIONS=halt_on_error=1:print_stacktrace=1
for isa in ${LIEROPE_ISA:-baseline avx2 avx512}; do
  echo "== $isa"
  LIEROPE_ISA=$isa LD_PRELOAD=$preload "$python" -m pytest -q -p no:cacheprovider -p no:xdist \
    tests/test_forward.py tests/test_layouts.py tests/test_errors.py tests/test_accuracy.py \
    tests/test_gradients.py -k "not second_order" "$@"
done
