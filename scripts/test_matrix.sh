#!/usr/bin/env bash
# The test suite with the lowest and the newest allowed versions, on other processor types and numbers of threads.
#
#   bash scripts/test_matrix.sh            # both, about half an hour
#
# OPENBLAS_CORETYPE chooses the kernels of another processor, which round differently.
set -euo pipefail
cd "$(dirname "$0")/.."
low=.venv-low
new=.venv
[ -x "$new/bin/python" ] || { echo "run make setup first" >&2; exit 1; }
"$new/bin/python" -m pip install --quiet uv
python=python3.12 # the lowest, where it can be run
"$python" -c '' 2>/dev/null || python="$new/bin/python"
"$new/bin/uv" venv --quiet --clear --python "$python" "$low"
"$new/bin/uv" pip install --quiet --python "$low/bin/python" --resolution lowest-direct --editable . --group test

run() { # environment, kernels, threads
    echo "== $1 with $2 kernels and $3 threads"
    PATH="$PWD/$1/bin:$PATH" OPENBLAS_CORETYPE="$2" OMP_NUM_THREADS="$3" \
        "$1/bin/python" -m pytest -q -n 2 -m "not slow"
}
status=0
run "$low" Prescott 1 || status=1
run "$new" Nehalem 2 || status=1
exit "$status"
