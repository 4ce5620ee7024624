#!/usr/bin/env python3
"""Writes one docker-archive per component: what `ctr images import` and `docker load` take.

No builder and no base image: a component's programs, the shared libraries they are linked with, and a few empty
directories make one layer. The same input gives the same bytes.

usage: build.py OUT BINARIES [TAG]     BINARIES: the directory of the built programs
"""

import gzip
import hashlib
import io
import json
import os
import platform
import re
import shutil
import subprocess
import sys
import tarfile

SOURCE = "https://github.com/weftmesh/weft"
# Name of the image: programs of ours, programs of the system, what runs, user id. The agent enters namespaces of pods
# and sets their rules: it cannot do without root; neither can a proxy that serves namespaces it is handed.
COMPONENTS = {
    "weft": (["weft", "weft-cni"], ["nft"], ["/usr/bin/weft"], 0),
    "weft-cni": (["weft-agent", "weft-cni"], ["nft"], ["/usr/bin/weft-agent"], 0),
    "weft-node-proxy": (["weft-node-proxy"], [], ["/usr/bin/weft-node-proxy"], 0),
    "weft-controller": (["weft-controller"], [], ["/usr/bin/weft-controller"], 65532),
    "weft-ca": (["weft-ca"], [], ["/usr/bin/weft-ca"], 65532),
}
DIRECTORIES = ["etc", "proc", "run", "sys", "tmp", "var", "var/lib"]
PASSWD = "root:x:0:0:root:/:/sbin/nologin\nnonroot:x:65532:65532:nonroot:/:/sbin/nologin\n"


def libraries(program):
    """The shared libraries of a program with the loader, as paths of this machine."""
    listed = subprocess.run(["ldd", program], capture_output=True, text=True, check=False)
    if "not a dynamic executable" in listed.stdout + listed.stderr:
        return []
    if "not found" in listed.stdout:
        sys.exit(f"{program} needs a library that isn't here:\n{listed.stdout}")
    return sorted(set(re.findall(r"(/\S+) \(0x", listed.stdout)))


def add(layer, name, data=None, mode=0o755):
    """Adds a file, or a directory if there is no data. Times and owners are fixed: same input, same bytes."""
    entry = tarfile.TarInfo(name)
    entry.mode = mode
    if data is None:
        entry.type = tarfile.DIRTYPE
        layer.addfile(entry)
    else:
        entry.size = len(data)
        layer.addfile(entry, io.BytesIO(data))


def stripped(path):
    """The program without its debug information."""
    done = subprocess.run(["strip", "-o", "/dev/stdout", path], capture_output=True, check=False)
    if done.returncode == 0 and done.stdout:
        return done.stdout
    with open(path, "rb") as file:
        return file.read()


def layer_of(ours, system, binaries):
    files = {"etc/passwd": PASSWD.encode()}
    programs = [(os.path.join(binaries, name), f"usr/bin/{name}") for name in ours]
    programs += [(shutil.which(name, path="/usr/sbin:/usr/bin:/sbin:/bin") or sys.exit(f"{name} is missing"),
                  f"usr/sbin/{name}") for name in system]
    for path, name in programs:
        files[name] = stripped(path)
        for library in libraries(path):
            with open(library, "rb") as file:
                files[library.lstrip("/")] = file.read()
    directories = set(DIRECTORIES)
    for name in files:
        parts = name.split("/")[:-1]
        directories.update("/".join(parts[:depth]) for depth in range(1, len(parts) + 1))
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT) as layer:
        for name in sorted(directories):
            add(layer, name, mode=0o1777 if name == "tmp" else 0o755)
        for name, data in sorted(files.items()):
            add(layer, name, data, 0o644 if name.startswith("etc/") else 0o755)
    return buffer.getvalue()


def image(component, binaries, tag):
    ours, system, command, user = COMPONENTS[component]
    layer = layer_of(ours, system, binaries)
    machine = {"x86_64": "amd64", "aarch64": "arm64"}.get(platform.machine(), platform.machine())
    labels = {
        "org.opencontainers.image.title": component,
        "org.opencontainers.image.version": tag,
        "org.opencontainers.image.source": SOURCE,
        "org.opencontainers.image.licenses": "Apache-2.0",
    }
    config = json.dumps({
        "architecture": machine, "os": "linux",
        "config": {"Entrypoint": command, "User": str(user), "Env": ["PATH=/usr/sbin:/usr/bin"], "Labels": labels},
        "rootfs": {"type": "layers", "diff_ids": ["sha256:" + hashlib.sha256(layer).hexdigest()]},
        "history": [{"created_by": "weft images", "comment": component}],
    }, sort_keys=True).encode()
    name = hashlib.sha256(config).hexdigest() + ".json"
    manifest = [{"Config": name, "RepoTags": [f"localhost/{component}:{tag}"], "Layers": ["layer.tar"]}]
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT) as archive:
        add(archive, name, config, 0o644)
        add(archive, "layer.tar", layer, 0o644)
        add(archive, "manifest.json", json.dumps(manifest).encode(), 0o644)
    return buffer.getvalue()


def main():
    if len(sys.argv) not in (3, 4):
        sys.exit(__doc__)
    out, binaries, tag = sys.argv[1], sys.argv[2], sys.argv[3] if len(sys.argv) == 4 else "dev"
    os.makedirs(out, exist_ok=True)
    for component in COMPONENTS:
        path = os.path.join(out, f"{component}.tar")
        data = image(component, binaries, tag)
        with open(path, "wb") as file:
            file.write(data)
        print(f"{path}  {len(data) / 2**20:.1f} MiB  sha256:{hashlib.sha256(data).hexdigest()[:16]}  "
              f"({len(gzip.compress(data, 1)) / 2**20:.1f} MiB compressed)")


if __name__ == "__main__":
    main()
