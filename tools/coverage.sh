#!/usr/bin/env bash
# Counts the lines of Python that all tests run, and those of C++ (gcov) that the operators' tests run; writes benchmarks/results/coverage.json.
set -euo pipefail
cd "$(dirname "$0")/.."
python=$(realpath -s "${PYTHON:-.venv/bin/python}")
work=build/coverage; rm -rf "$work"; mkdir -p "$work"
export COVERAGE_FILE=$PWD/$work/data
run() { "$python" -m pytest -q -p no:cacheprovider -n "${JOBS:-2}" --dist worksteal "$@"; }
failed=0  # a test that fails is told at the end, and half an hour's counts are kept
run --cov=lierope --cov-report= || failed=$?
# Tests copy the package and run the copy: those files are not counted.
"$python" -m coverage json -q --include="$PWD/python/*" -o "$work/python.json"
# Instrumented kernels are slow, and only operators reach them: their tests, a process for each instruction set. Not pytest's workers:
# they end without writing counters. What is cheaper, counting kernels do not know.
LIEROPE_COVERAGE=1 "$python" setup.py -q build_ext --build-lib "$work"
find build/objectscoverage -name '*.gcda' -delete
export LIEROPE_LIBRARY=$PWD/$work/lierope/liblierope_cpu.so
operators=(tests/test_{forward,gradients,layouts,sizes,errors,isolation,act,rays,extremes}.py)
sets=$("$python" -c 'import lierope; sets = ["baseline", "avx2", "avx512"]; print(*sets[: sets.index(lierope.build_info().instruction_set) + 1])')
processes=()
for isa in $sets; do
  LIEROPE_ISA=$isa "$python" -m pytest -q -p no:cacheprovider -p no:xdist "${operators[@]}" -k "not second_order and not opcheck and not cheaper_way and not less_time" &
  processes+=($!)
done
for process in "${processes[@]}"; do wait "$process" || failed=$?; done
"$python" -m gcovr --root . --filter csrc/ --gcov-ignore-parse-errors all --exclude-throw-branches --merge-lines \
  --json-summary "$work/cpp.json" build/objectscoverage
"$python" -m tools.coverage_table "$work/python.json" "$work/cpp.json"
exit $failed
