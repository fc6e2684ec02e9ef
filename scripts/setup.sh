#!/usr/bin/env bash
# Make a virtual environment with the newest suitable Python and install the project into it.
set -euo pipefail
venv="$1"

suitable() { "$1" -c 'import sys, venv, ensurepip; sys.exit(not (3, 12) <= sys.version_info[:2] < (3, 15))' 2>/dev/null; }

install_with_pip() {
    "$venv/bin/python" -m pip install --quiet --disable-pip-version-check --upgrade "pip>=25.1"
    "$venv/bin/python" -m pip install --quiet --disable-pip-version-check --no-compile --editable . --group dev
}

if [ -x "$venv/bin/python" ] && "$venv/bin/python" -c 'import sys; sys.exit(sys.version_info < (3, 12))' 2>/dev/null; then
    echo "using the existing $venv"
    if "$venv/bin/python" -m pip --version >/dev/null 2>&1; then
        install_with_pip
    else
        uv pip install --quiet --python "$venv/bin/python" --editable . --group dev
    fi
    exit 0
fi

for python in python3.14 python3.13 python3.12 python3; do
    if command -v "$python" >/dev/null 2>&1 && suitable "$python"; then
        echo "creating $venv with $("$python" --version) ($python)"
        "$python" -m venv --clear "$venv"
        install_with_pip
        exit 0
    fi
done

if command -v uv >/dev/null 2>&1; then
    echo "creating $venv with uv"
    uv venv --quiet --clear --python '>=3.12,<3.15' "$venv"
    uv pip install --quiet --python "$venv/bin/python" --editable . --group dev
    exit 0
fi

cat >&2 <<'EOF'
bayesunfold needs Python 3.12, 3.13 or 3.14 with the venv module, and none was found.
Install one of:
  Debian, Ubuntu:  apt-get install python3 python3-venv   (if that is 3.12 or newer)
  macOS:           brew install python@3.13
  anywhere:        install uv (https://docs.astral.sh/uv/), which brings its own Python
and run make again.
EOF
exit 1
