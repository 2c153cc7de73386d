#!/usr/bin/env bash
# Builds the library with AddressSanitizer and UndefinedBehaviorSanitizer and runs the operator tests under both; `short` as the first word
# instruments only the baseline kernels and all that stands above them, and repeats the fuzzer's numbered calls instead.
set -euo pipefail
cd "$(dirname "$0")/.."
python=$(realpath -s "${PYTHON:-.venv/bin/python}")
export LIEROPE_SANITIZE=address,undefined OMP_NUM_THREADS=2
# protect_shadow_gap=0: torch's allocations may lie there.
export ASAN_OPTIONS=detect_leaks=0:protect_shadow_gap=0 UBSAN_OPTIONS=halt_on_error=1:print_stacktrace=1${UBSAN_OPTIONS:+:$UBSAN_OPTIONS}
if [ "${1:-}" = short ]; then
  work=$PWD/build/sanitized_short; mkdir -p "$work"
  LIEROPE_SANITIZE_SETS=baseline "$python" setup.py -q build_ext --build-lib "$work"
  PYTHON=$python LIEROPE_LIBRARY=$work/lierope/liblierope_cpu.so bash tools/replay.sh "$work/replay"
  LIEROPE_ISA=baseline "$work/replay" "${CALLS:-4000}"
  exit
fi
work=build/sanitized; rm -rf "$work"; mkdir -p "$work"
cp -r python/lierope "$work/lierope"
"$python" setup.py -q build_ext --build-lib "$work"
cxx=${CXX:-g++}
preload=$(for name in libasan libubsan libstdc++; do "$cxx" -print-file-name="$name.so"; done | paste -sd:)
export PYTHONPATH=$PWD/$work LIEROPE_ALLOW_STALE=1
for isa in ${LIEROPE_ISA:-baseline avx2 avx512}; do
  echo "== $isa"
  LIEROPE_ISA=$isa LD_PRELOAD=$preload "$python" -m pytest -q -p no:cacheprovider -p no:xdist \
    tests/test_forward.py tests/test_layouts.py tests/test_errors.py tests/test_accuracy.py \
    tests/test_gradients.py -k "not second_order" "$@"
done
