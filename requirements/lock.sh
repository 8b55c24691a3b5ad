#!/usr/bin/env bash
# Write the lock files from pyproject.toml (`make lock`, needs uv). Pins already there are kept;
# `make lock UPGRADE=1` takes the newest releases.
#
# base.lock   everything but torch and its CUDA packages, with what a CPU build of torch needs
# torch.lock  torch from PyPI with its CUDA packages, installed by `make setup TORCH=locked`
#
# One version of each package for Python 3.11 to 3.13, so that numbers do not depend on the Python.
set -euo pipefail
cd "$(dirname "$0")/.."

uv=${UV:-uv}
command -v "$uv" >/dev/null || { echo "error: uv not found; install it (pip install uv) or set UV=/path/to/uv" >&2; exit 1; }

compile() {
  "$uv" pip compile "$@" --quiet --no-config --default-index https://pypi.org/simple --universal \
    --python-version 3.11 --fork-strategy fewest --generate-hashes --custom-compile-command "make lock" \
    ${UPGRADE:+--upgrade}
}

echo "locking torch and its CUDA packages: requirements/torch.lock"
compile requirements/torch.in --output-file requirements/torch.lock

echo "locking everything else: requirements/base.lock"
omit=$(sed -nE 's/^(torch|triton|(cuda|nvidia)-[a-z0-9-]+)==.*/--no-emit-package \1/p' requirements/torch.lock)
# shellcheck disable=SC2086  # one word per option is meant
compile pyproject.toml --extra dev --constraint requirements/torch.lock --output-file requirements/base.lock $omit
