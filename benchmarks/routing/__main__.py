"""Run every part, each in a process of its own: ``python -m benchmarks.routing [--only PART]``."""

from __future__ import annotations

import argparse
import subprocess
import sys

#: Modules of this package, in order.
PARTS = ("assignment", "changes", "gateway", "kill")


def main() -> None:
    """Run the parts, or one of them; end with the first code that is no success."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", choices=PARTS)
    only = parser.parse_args().only
    for part in PARTS if only is None else (only,):
        print(f"-- {part}", flush=True)
        code = subprocess.run([sys.executable, "-m", f"benchmarks.routing.{part}"], check=False).returncode
        if code:
            sys.exit(code)


if __name__ == "__main__":
    main()
