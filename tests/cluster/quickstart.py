#!/usr/bin/env python3
"""Runs the commands of docs/quickstart.md line by line, each as a person would type it; the first that fails ends it.

usage: quickstart.py CLUSTER_DIR CRDS_DIR     the Gateway API's CRDs come from CRDS_DIR: nothing here leaves the machine
"""

import pathlib
import re
import subprocess
import sys
import time

MOST_COMMANDS = 10
REPOSITORY = pathlib.Path(__file__).resolve().parents[2]


def commands(page):
    """The lines of all bash blocks, with continued lines joined."""
    for block in re.findall(r"^```bash\n(.*?)^```", page, re.MULTILINE | re.DOTALL):
        for line in block.replace("\\\n", " ").splitlines():
            if line.strip() and not line.lstrip().startswith("#"):
                yield line.strip()


def main():
    cluster, crds = (pathlib.Path(arg) for arg in sys.argv[1:])
    found = list(commands((REPOSITORY / "docs/quickstart.md").read_text()))
    if not found or len(found) > MOST_COMMANDS:
        sys.exit(f"{len(found)} commands; the quickstart promises at most {MOST_COMMANDS}")
    started = time.monotonic()
    for number, command in enumerate(found, 1):
        print(f"[{number}/{len(found)}] $ {command}", flush=True)
        local = re.sub(r"-f https://\S*/standard-install\.yaml", f"-f {crds}/standard", command)
        done = subprocess.run([cluster / "in-cp", "bash", "-c", local], cwd=REPOSITORY, timeout=400, check=False)
        if done.returncode != 0:
            sys.exit(f"exit code {done.returncode}: {command}")
    print(f"quickstart: {len(found)} commands in {time.monotonic() - started:.0f} s")


if __name__ == "__main__":
    main()
