#!/usr/bin/env bash
# Builds CUDA's kernels for the CPU and runs the operator tests on them; `sanitize` as the first word adds AddressSanitizer and UBSan.
set -euo pipefail
cd "$(dirname "$0")/.."
python=$(realpath -s "${PYTHON:-.venv/bin/python}")
folder=build/emulated
if [ "${1:-}" = sanitize ]; then
  shift
  export LIEROPE_SANITIZE=address,undefined; folder=build/emulated_sanitized
fi
LIEROPE_BUILD=emulated "$python" setup.py -q build_ext --build-lib "$folder"
export LIEROPE_LIBRARY=$PWD/$folder/liblierope_emulated.so OMP_NUM_THREADS=1
run() { echo "== $1"; "$python" -m pytest -p no:cacheprovider "${@:2}"; }
files=(tests/test_forward.py tests/test_errors.py tests/test_layouts.py tests/test_isolation.py)
if [ -n "${LIEROPE_SANITIZE:-}" ]; then
  cxx=${CXX:-g++}
  preload=$(for name in libasan libubsan libstdc++; do "$cxx" -print-file-name="$name.so"; done | paste -sd:)
  export ASAN_OPTIONS=detect_leaks=0:protect_shadow_gap=0 UBSAN_OPTIONS=halt_on_error=1:print_stacktrace=1
  export LD_PRELOAD=$preload
  run "emulated CUDA under ASan and UBSan" -p no:xdist --capture=sys "${files[@]}" tests/test_sizes.py "$@"
  exit
fi
workers=(-n "${JOBS:-2}" --dist worksteal)
run "emulated CUDA" "${workers[@]}" "${files[@]}" tests/test_sizes.py tests/test_gradients.py tests/test_accuracy.py tests/test_transforms.py \
  -k "not second_order and not test_opcheck and not test_compile and not test_export" "$@"
for order in forward reverse; do
  export LIEROPE_EMULATION_ORDER=$order
  run "emulated CUDA, threads in $order order" "${workers[@]}" tests/test_forward.py tests/test_sizes.py "$@"
done
