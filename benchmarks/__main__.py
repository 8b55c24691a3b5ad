"""Run every benchmark of this folder, or those named: python -m benchmarks [NAME ...]. Each writes its own record."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from harness.gpu import visible_devices

FOLDER = Path(__file__).parent
NEED_GPU = {"gpu_determinism"}


def main(names: list[str]) -> int:
    known = sorted(path.stem for path in FOLDER.glob("*.py") if not path.stem.startswith("_"))
    unknown = [name for name in names if name not in known]
    if unknown:
        print(f"error: no benchmark {', '.join(unknown)}; there are {', '.join(known)}", file=sys.stderr)
        return 1
    failed = []
    for name in names or known:
        if not names and name in NEED_GPU and not visible_devices():
            print(f"== {name}: left out, there is no GPU", flush=True)
            continue
        print(f"== {name}", flush=True)
        if subprocess.run([sys.executable, "-m", f"benchmarks.{name}"]).returncode:
            failed.append(name)
    if failed:
        print(f"error: failed: {', '.join(failed)}", file=sys.stderr)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
