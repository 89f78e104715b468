"""What `ray up` needs of rsync, where it is not installed: copy a file or a folder to a host."""

from __future__ import annotations

import argparse
import os
import shlex
import stat
import subprocess
import sys


def main() -> int:
    """Copy as `rsync --rsh SSH -avz [--exclude X] SOURCE USER@HOST:TARGET` would."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--rsh", required=True)
    parser.add_argument("-avz", action="store_true", required=True)
    parser.add_argument("--exclude", action="append", default=[])
    parser.add_argument("source")
    parser.add_argument("target")
    asked = parser.parse_args()
    host, _, path = asked.target.partition(":")
    remote = [*shlex.split(asked.rsh), host]
    if not asked.source.endswith("/"):
        mode = stat.S_IMODE(os.stat(asked.source).st_mode)
        writing = [*remote, f"cat > {path} && chmod {mode:o} {path}"]
        with open(asked.source, "rb") as file:
            return subprocess.run(writing, stdin=file, check=False).returncode
    # As for rsync, a name with a leading slash stands at the top only.
    excluded = [
        option
        for name in asked.exclude
        for option in (
            ("--anchored", f"--exclude=.{name}")
            if name.startswith("/")
            else ("--no-anchored", f"--exclude={name}")
        )
    ]
    packing = ["tar", "-C", asked.source, *excluded, "-cf", "-", "."]
    with subprocess.Popen(packing, stdout=subprocess.PIPE) as packed:
        unpacking = [*remote, f"mkdir -p {path} && tar -C {path} -xf -"]
        return subprocess.run(unpacking, stdin=packed.stdout, check=False).returncode


if __name__ == "__main__":
    sys.exit(main())
