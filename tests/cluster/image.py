#!/usr/bin/env python3
"""Writes a docker-archive with one layer of static programs: no registry and no builder.

usage: image.py OUT.tar NAME:TAG[,NAME:TAG...] ENTRYPOINT SOURCE:DESTINATION...
"""

import hashlib
import io
import json
import platform
import sys
import tarfile


def layer_of(files):
    """One layer: /tmp, /etc and the given files, owned by root, without times: same input, same bytes."""
    layer = io.BytesIO()
    with tarfile.open(fileobj=layer, mode="w") as tar:
        for name, mode in (("tmp", 0o1777), ("etc", 0o755)):
            entry = tarfile.TarInfo(name)
            entry.type, entry.mode = tarfile.DIRTYPE, mode
            tar.addfile(entry)
        for source, destination in files:
            entry = tar.gettarinfo(source, arcname=destination.lstrip("/"))
            entry.uid = entry.gid = entry.mtime = 0
            entry.uname = entry.gname = ""
            with open(source, "rb") as data:
                tar.addfile(entry, data)
    return layer.getvalue()


def main():
    out, name, entrypoint, *files = sys.argv[1:]
    layer = layer_of(file.split(":") for file in files)
    digest = hashlib.sha256(layer).hexdigest()
    config = json.dumps({
        "architecture": {"x86_64": "amd64", "aarch64": "arm64"}[platform.machine()],
        "os": "linux",
        "config": {"Entrypoint": [entrypoint], "Env": ["PATH=/usr/local/bin:/usr/bin:/bin:/"]},
        "rootfs": {"type": "layers", "diff_ids": ["sha256:" + digest]},
        "history": [{}],
    }).encode()
    config_name = hashlib.sha256(config).hexdigest() + ".json"
    layer_name = digest + "/layer.tar"
    manifest = [{"Config": config_name, "RepoTags": name.split(","), "Layers": [layer_name]}]
    with tarfile.open(out, "w") as tar:
        for path, data in (
            (config_name, config), (layer_name, layer), ("manifest.json", json.dumps(manifest).encode())
        ):
            entry = tarfile.TarInfo(path)
            entry.size = len(data)
            tar.addfile(entry, io.BytesIO(data))


main()
