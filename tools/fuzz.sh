#!/usr/bin/env bash
# Builds the library for libFuzzer with AddressSanitizer and UndefinedBehaviorSanitizer, and feeds its operators for SECONDS_ seconds.
set -euo pipefail
cd "$(dirname "$0")/.."
python=$(realpath -s "${PYTHON:-.venv/bin/python}")
cxx=${CLANG:-$(command -v clang++ clang++-19 clang++-18 clang++-17 | head -1 || true)}
if [ -z "$cxx" ]; then echo "fuzz: needs clang++ 17 or newer with compiler-rt (Debian: clang-19 libclang-rt-19-dev), or name one in CLANG" >&2; exit 2; fi
work=build/fuzz; mkdir -p "$work/corpus" "$work/found"
CXX=$cxx LIEROPE_SANITIZE=fuzzer-no-link,address,undefined "$python" setup.py -q build_ext --build-lib "$work"
torch=$("$python" -c 'import torch, pathlib; print(pathlib.Path(torch.__file__).parent)')
library=$PWD/$work/lierope
"$cxx" -std=c++20 -O1 -g1 -fsanitize=fuzzer,address,undefined -Wno-everything \
  -isystem "$torch/include" -isystem "$torch/include/torch/csrc/api/include" tests/fuzz/operators.cpp \
  -o "$work/operators" -L"$torch/lib" -ltorch -ltorch_cpu -lc10 -Wl,-rpath,"$torch/lib" \
  -Wl,--no-as-needed "$library/liblierope_cpu.so" -Wl,-rpath,"$library"
export ASAN_OPTIONS=detect_leaks=0:protect_shadow_gap=0 UBSAN_OPTIONS=halt_on_error=1:print_stacktrace=1 OMP_NUM_THREADS=1
for isa in ${LIEROPE_ISA:-avx512 avx2 baseline}; do
  echo "== $isa"
  LIEROPE_ISA=$isa "$work/operators" -max_total_time="${SECONDS_EACH:-60}" -max_len=256 -timeout=20 -rss_limit_mb=6000 \
    -artifact_prefix="$work/found/" -print_final_stats=1 "$@" "$work/corpus" 2>&1 | grep -E "ERROR|SUMMARY|#0|#1 |#2 |#3 |cov:|stat::|: an |runtime error|Test unit" | tail -40
done
