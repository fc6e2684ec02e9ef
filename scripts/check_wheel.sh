#!/usr/bin/env bash
# Build sdist and wheel, install the wheel alone into a fresh environment without extras, and run the README's ten lines.
set -euo pipefail
cd "$(dirname "$0")/.."
python="${1:-.venv/bin/python}"
work="$(mktemp -d)"
trap 'rm -rf "$work"' EXIT

"$python" -m venv "$work/build"
"$work/build/bin/python" -m pip install --quiet --disable-pip-version-check build
# the wheel is built from the sdist, so the sdist is complete
"$work/build/bin/python" -m build --outdir "$work/dist" . >"$work/build.log" 2>&1 || { cat "$work/build.log"; exit 1; }
du -k "$work"/dist/* | awk '{printf "%s kB  %s\n", $1, $2}' | sed "s|$work/dist/||"

"$python" -m venv "$work/clean"
"$work/clean/bin/python" -m pip install --quiet --disable-pip-version-check --no-compile "$work"/dist/*.whl
# the first Python block of the README, in a folder without the sources
"$python" - README.md >"$work/lines.py" <<'PY'
import re, sys
print(re.search(r"```python\n(.*?)```", open(sys.argv[1], encoding="utf-8").read(), re.DOTALL)[1])
PY
cd "$work"
MPLBACKEND=agg "$work/clean/bin/python" "$work/lines.py"
test -s toy.png && test -s unfolded.nc
"$work/clean/bin/bayesunfold" info unfolded.nc >info.txt  # no pipe: head would close it while it is written to
head -n 1 info.txt
"$work/clean/bin/python" -c 'import bayesunfold, sys; print("installed from", "site-packages" if "site-packages" in bayesunfold.__file__ else sys.exit("the sources"))'
