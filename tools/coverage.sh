#!/usr/bin/env bash
# Counts the lines of Python that all tests run, and those of C++ (gcov) that the operators' tests run; writes benchmarks/results/coverage.json.
set -euo pipefail
cd "$(dirname "$0")/.."
python=$(realpath -s "${PYTHON:-.venv/bin/python}")
work=build/coverage; rm -rf "$work"; mkdir -p "$work"
export COVERAGE_FILE=$PWD/$work/data
run() { "$python" -m pytest -q -p no:cacheprovider -n "${JOBS:-2}" --dist worksteal "$@"; }
run --cov=lierope --cov-report=
"$python" -m coverage json -q -o "$work/python.json"
# Instrumented kernels are slow, and only operators reach them: their tests, once for each instruction set.
LIEROPE_COVERAGE=1 "$python" setup.py -q build_ext --build-lib "$work"
find build/objectscoverage -name '*.gcda' -delete
export LIEROPE_LIBRARY=$PWD/$work/lierope/liblierope_cpu.so
operators=(tests/test_forward.py tests/test_gradients.py tests/test_layouts.py tests/test_sizes.py tests/test_errors.py tests/test_isolation.py tests/test_act.py)
for isa in $("$python" -c 'import lierope; sets = ["baseline", "avx2", "avx512"]; print(*sets[: sets.index(lierope.build_info().instruction_set) + 1])'); do
  LIEROPE_ISA=$isa run "${operators[@]}" -k "not second_order and not opcheck"
done
"$python" -m gcovr --root . --filter csrc/ --gcov-ignore-parse-errors all --exclude-throw-branches --json-summary "$work/cpp.json" build/objectscoverage
"$python" -m tools.coverage_table "$work/python.json" "$work/cpp.json"
