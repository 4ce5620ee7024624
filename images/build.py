#!/usr/bin/env python3
"""Writes one docker-archive per component: what `ctr images import` and `docker load` take.

No builder and no base image: a component's programs, which are static, and a few empty directories make one layer; where
a program of the system is needed, it comes with the libraries that it is linked with. The same input gives the same bytes.

usage: build.py OUT BINARIES TAG ARCH     BINARIES: the directory of the built programs; ARCH: amd64 or arm64
       build.py describe TAG              what the images are run as, as JSON
"""

import gzip
import hashlib
import io
import json
import os
import platform
import re
import shutil
import struct
import subprocess
import sys
import tarfile
import tempfile

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
# Debian's packages of the programs of the system.
PACKAGES = {"nft": "nftables"}
DIRECTORIES = ["etc", "proc", "run", "sys", "tmp", "var", "var/lib"]
PASSWD = "root:x:0:0:root:/:/sbin/nologin\nnonroot:x:65532:65532:nonroot:/:/sbin/nologin\n"


# What stands in the header of a program for each architecture (ELF, e_machine).
MACHINES = {"amd64": 62, "arm64": 183}


def native(arch):
    """Whether programs of this architecture run here."""
    return arch == {"x86_64": "amd64", "aarch64": "arm64"}.get(platform.machine())


def libraries(program):
    """The shared libraries of a program with the loader, as paths of this machine."""
    listed = subprocess.run(["ldd", program], capture_output=True, text=True, check=False)
    if "not a dynamic executable" in listed.stdout + listed.stderr or "statically linked" in listed.stdout:
        return []
    if "not found" in listed.stdout:
        sys.exit(f"{program} needs a library that isn't here:\n{listed.stdout}")
    return sorted(set(re.findall(r"(/\S+) \(0x", listed.stdout)))


def unfit(path, arch):
    """Why a program can't be all there is in an image: it is for another machine, or needs a loader and libraries."""
    with open(path, "rb") as file:
        data = file.read()
    if data[:6] != b"\x7fELF\x02\x01":
        return "is no 64-bit little-endian ELF program"
    machine, = struct.unpack_from("<H", data, 18)
    if machine != MACHINES[arch]:
        return f"is for machine {machine}, and {arch} is {MACHINES[arch]}"
    offset, = struct.unpack_from("<Q", data, 32)
    size, count = struct.unpack_from("<HH", data, 54)
    kinds = [struct.unpack_from("<I", data, offset + number * size)[0] for number in range(count)]
    # PT_INTERP: the loader that it asks for.
    return "is not static: build it by `make images`" if 3 in kinds else None


def foreign_libraries(program, root):
    """The same for a program of another architecture below `root`, where Debian's packages were unpacked."""
    found, todo = {}, [program]
    while todo:
        listed = subprocess.run(["readelf", "-dl", todo.pop()], capture_output=True, text=True, check=True).stdout
        names = re.findall(r"\(NEEDED\).*\[(.+)\]", listed)
        names += [os.path.basename(loader) for loader in re.findall(r"interpreter: (\S+)\]", listed)]
        for name in set(names) - found.keys():
            matches = [os.path.join(at, name) for at, _, files in os.walk(root) if name in files]
            if not matches:
                sys.exit(f"{program} needs {name}, which none of the packages has")
            found[name] = matches[0]
            todo.append(matches[0])
    return sorted(found.values())


def packages(arch, folder):
    """Unpacks Debian's packages of the programs of the system, for another architecture, with all they depend on."""
    root, state = os.path.join(folder, "root"), os.path.join(folder, "apt")
    for path in ("state/lists/partial", "cache/archives/partial"):
        os.makedirs(os.path.join(state, path), exist_ok=True)
    apt = ["apt-get", "-qq", "-y", f"-oAPT::Architecture={arch}", f"-oAPT::Architectures={arch}", "-oAPT::Sandbox::User=root",
           f"-oDir::State={state}/state", f"-oDir::Cache={state}/cache", "-oDir::State::status=/dev/null"]
    names = sorted({PACKAGES[name] for _, system, _, _ in COMPONENTS.values() for name in system})
    subprocess.run([*apt, "update"], check=True)
    subprocess.run([*apt, "--download-only", "--no-install-recommends", "install", *names], check=True, stdout=subprocess.DEVNULL)
    archives = os.path.join(state, "cache/archives")
    for package in sorted(name for name in os.listdir(archives) if name.endswith(".deb")):
        subprocess.run(["dpkg", "-x", os.path.join(archives, package), root], check=True)
    return root


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


def stripped(path, arch):
    """The program without its debug information."""
    tool = "strip" if native(arch) else {"amd64": "x86_64", "arm64": "aarch64"}[arch] + "-linux-gnu-strip"
    done = subprocess.run([tool, "-o", "/dev/stdout", path], capture_output=True, check=False)
    if done.returncode == 0 and done.stdout:
        return done.stdout
    with open(path, "rb") as file:
        return file.read()


def system_files(system, arch, root):
    """The programs of the system with their libraries: path in the image to content."""
    files = {}
    for name in system:
        folders = [os.path.join(root, folder) for folder in ("usr/sbin", "usr/bin", "sbin", "bin")]
        path = shutil.which(name, path=":".join(folders)) or sys.exit(f"{name} is missing")
        files[f"usr/sbin/{name}"] = stripped(path, arch)
        for library in libraries(path) if root == "/" else foreign_libraries(path, root):
            with open(library, "rb") as file:
                files[os.path.relpath(library, root)] = file.read()
    return files


def layer_of(ours, system, binaries, arch, root):
    files = {"etc/passwd": PASSWD.encode()}
    for name in ours:
        path = os.path.join(binaries, name)
        why = unfit(path, arch)
        if why:
            sys.exit(f"{path} {why}")
        files[f"usr/bin/{name}"] = stripped(path, arch)
    files.update(system_files(system, arch, root))
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


def settings(component, tag):
    """What an image is run as."""
    _, _, command, user = COMPONENTS[component]
    labels = {
        "org.opencontainers.image.title": component,
        "org.opencontainers.image.version": tag,
        "org.opencontainers.image.source": SOURCE,
        "org.opencontainers.image.licenses": "Apache-2.0",
    }
    return {"Entrypoint": command, "User": str(user), "Env": ["PATH=/usr/sbin:/usr/bin"], "Labels": labels}


def image(component, binaries, tag, arch, root):
    ours, system, _, _ = COMPONENTS[component]
    layer = layer_of(ours, system, binaries, arch, root)
    config = json.dumps({
        "architecture": arch, "os": "linux",
        "config": settings(component, tag),
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
    if len(sys.argv) == 3 and sys.argv[1] == "describe":
        print(json.dumps({component: settings(component, sys.argv[2]) for component in COMPONENTS}))
        return
    if len(sys.argv) != 5 or sys.argv[4] not in MACHINES:
        sys.exit(__doc__)
    out, binaries, tag, arch = sys.argv[1:]
    os.makedirs(out, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        root = "/" if native(arch) else packages(arch, folder)
        for component in COMPONENTS:
            path = os.path.join(out, f"{component}.tar")
            data = image(component, binaries, tag, arch, root)
            with open(path, "wb") as file:
                file.write(data)
            print(f"{path}  {arch}  {len(data) / 2**20:.1f} MiB  sha256:{hashlib.sha256(data).hexdigest()[:16]}  "
                  f"({len(gzip.compress(data, 1)) / 2**20:.1f} MiB compressed)")


if __name__ == "__main__":
    main()
