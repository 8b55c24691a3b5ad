#!/usr/bin/env bash
# Build .venv from the lock files (`make setup`). An environment that is complete and current is left alone;
# anything else, such as one interrupted half-way or made from older locks, is built anew.
#
# PYTHON       interpreter to use, 3.11 to 3.13 (default: the first that fits of python3, python3.13, 3.12, 3.11)
# TORCH_INDEX  package index to take torch from, e.g. https://download.pytorch.org/whl/cpu
# TORCH        `locked`: PyPI's torch and CUDA packages with verified hashes (requirements/torch.lock)
#
# All other packages are installed with verified hashes. Without TORCH=locked torch has an exact version but no
# hash, because each index serves its own build: the default is whatever pip is configured to find, which on Linux
# with plain PyPI is the CUDA build. An existing environment keeps its torch unless a variable asks for another.
set -euo pipefail
cd "$(dirname "$0")/.."
ready=.venv/ready
PATH=${PATH//"$PWD/.venv/bin:"/} # an activated .venv must not be the Python it is rebuilt with

fail() { echo "error: $*" >&2; exit 1; }

fits() { "$1" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' 2>/dev/null; }

find_python() {
  if [ -n "${PYTHON:-}" ]; then
    command -v "$PYTHON" >/dev/null || fail "PYTHON=$PYTHON was not found"
    fits "$PYTHON" || fail "PYTHON=$PYTHON is $("$PYTHON" --version 2>&1); Python 3.11, 3.12 or 3.13 is needed"
    command -v "$PYTHON"
    return
  fi
  for name in python3 python3.13 python3.12 python3.11; do
    if fits "$name"; then command -v "$name"; return; fi
  done
  fail "python3 is $(python3 --version 2>&1 || true); install Python 3.11, 3.12 or 3.13, or name one: make setup PYTHON=/path/to/python3.12"
}

choose_torch() {
  case "${TORCH:-}" in
    locked) [ -z "${TORCH_INDEX:-}" ] || fail "TORCH=locked comes from PyPI: leave TORCH_INDEX empty"; echo locked ;;
    "") [ -z "${TORCH_INDEX:-}" ] && echo default || echo "index $TORCH_INDEX" ;;
    *) fail "TORCH=$TORCH is not known; leave it empty or set TORCH=locked" ;;
  esac
}

# What the environment was made from, one fact per line. A variable that is not set is no wish to change anything.
describe() {
  echo "python $("$1" -c 'import platform; print(platform.python_version())')"
  echo "torch $2"
  cat requirements/base.lock requirements/torch.lock | cksum
}

torch=$(choose_torch)
if [ -f $ready ] && .venv/bin/python -c '' 2>/dev/null; then
  python=.venv/bin/python
  [ -z "${PYTHON:-}" ] || python=$(find_python)
  wanted=$torch
  [ "$torch" != default ] || wanted=$(sed -n 's/^torch //p' $ready)
  if [ "$(describe "$python" "$wanted")" = "$(cat $ready)" ]; then
    echo "setup: .venv is up to date ($(sed -n 1p $ready), torch: $wanted)"
    exit 0
  fi
  torch=$wanted
fi

python=$(find_python)
[ ! -e .venv ] || echo "setup: .venv is incomplete or out of date, starting anew"
echo "setup: creating .venv with $("$python" --version) ($python)"
rm -rf .venv
"$python" -m venv .venv
pip=".venv/bin/python -m pip --disable-pip-version-check"

echo "setup: [1/2] installing packages from requirements/base.lock"
$pip install --require-hashes --no-deps -r requirements/base.lock

echo "setup: [2/2] installing torch ($torch)"
case "$torch" in
  locked) $pip install --require-hashes -r requirements/torch.lock ;;
  default) $pip install -r requirements/torch.in ;;
  index\ *) $pip install --index-url "${torch#index }" -r requirements/torch.in ;;
  *) fail "torch choice '$torch' is not known" ;;
esac

$pip check
describe .venv/bin/python "$torch" > $ready.new
mv $ready.new $ready
.venv/bin/python -c 'import torch; print("setup: done, torch", torch.__version__, "with" if torch.cuda.is_available() else "without", "a CUDA device")'
