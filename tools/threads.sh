#!/usr/bin/env bash
# Builds the library with ThreadSanitizer and runs operators on several threads under it.
set -euo pipefail
cd "$(dirname "$0")/.."
python=$(realpath -s "${PYTHON:-.venv/bin/python}")
find_library() { ls /usr/lib/llvm-*/lib/"$1" /usr/lib/*/"$1" 2> /dev/null | tail -1; }
# libgomp's barriers are unknown to ThreadSanitizer; LLVM's runtime with archer explains itself.
omp=$(find_library libomp.so.5 || true) archer=$(find_library libarcher.so || true)
if [ -z "$omp" ] || [ -z "$archer" ]; then echo "threads: needs LLVM's libomp with archer (Debian: libomp-19-dev)" >&2; exit 2; fi
work=build/threads; rm -rf "$work"; mkdir -p "$work"
LIEROPE_SANITIZE=thread "$python" setup.py -q build_ext --build-lib "$work"
export LIEROPE_LIBRARY=$PWD/$work/lierope/liblierope_cpu.so LIEROPE_ALLOW_STALE=1 OMP_NUM_THREADS=4
export TSAN_OPTIONS=ignore_noninstrumented_modules=1:exitcode=66 OMP_TOOL_LIBRARIES=$archer
preload=$("${CXX:-g++}" -print-file-name=libtsan.so):$omp
LD_PRELOAD=$preload "$python" -m pytest -q -p no:cacheprovider -p no:xdist --capture=sys \
  tests/test_determinism.py tests/test_concurrency.py -k "not fork" "$@"  # new threads after a fork: not supported by it
