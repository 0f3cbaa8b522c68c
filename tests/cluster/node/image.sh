#!/bin/bash
# An image of one program, the shared libraries that it needs and the system's authorities, as an OCI
# layout in a tar:
# image.sh PROGRAM REFERENCE TAR. The user is not root, and there is no shell.
set -euo pipefail
python3 - "$@" <<'EOF'
import hashlib, io, json, os, re, subprocess, sys, tarfile

program, reference, target = sys.argv[1:]
blobs = {}

def blob(data, kind):
    digest = hashlib.sha256(data).hexdigest()
    blobs["blobs/sha256/" + digest] = data
    return {"mediaType": kind, "digest": "sha256:" + digest, "size": len(data)}

def libraries(program):
    """The loader and every library, by the paths at which the loader looks for them."""
    told = subprocess.run(["ldd", program], capture_output=True, text=True)
    if told.returncode:
        return {}
    found = re.findall(r"(?:(\S+) => )?(/\S+) \(0x", told.stdout)
    return {(path if not name or name.startswith("/") else "/lib/" + name): os.path.realpath(path) for name, path in found}

files = {"/" + os.path.basename(program): program, **libraries(program)}
authorities = "/etc/ssl/certs/ca-certificates.crt"
if os.path.exists(authorities):
    files[authorities] = authorities
layer = io.BytesIO()
with tarfile.open(fileobj=layer, mode="w") as tar:
    made = set()
    for path in sorted(files):
        for index in [i for i, c in enumerate(path) if c == "/" and i > 0]:
            if path[1:index] not in made:
                made.add(path[1:index])
                folder = tarfile.TarInfo(path[1:index])
                folder.type, folder.mode = tarfile.DIRTYPE, 0o755
                tar.addfile(folder)
        entry = tarfile.TarInfo(path[1:])
        entry.mode, entry.size = 0o755, os.path.getsize(files[path])
        with open(files[path], "rb") as file:
            tar.addfile(entry, file)
    for name in ["tmp", "work"]:
        folder = tarfile.TarInfo(name)
        folder.type, folder.mode = tarfile.DIRTYPE, 0o1777
        tar.addfile(folder)
layer = blob(layer.getvalue(), "application/vnd.oci.image.layer.v1.tar")
config = {
    "architecture": "amd64",
    "os": "linux",
    "config": {
        "Entrypoint": ["/" + os.path.basename(program)],
        "User": "65532:65532",
        "Env": ["LD_LIBRARY_PATH=/lib", "PATH=/"],
    },
    "rootfs": {"type": "layers", "diff_ids": [layer["digest"]]},
}
config = blob(json.dumps(config).encode(), "application/vnd.oci.image.config.v1+json")
kind = "application/vnd.oci.image.manifest.v1+json"
manifest = {"schemaVersion": 2, "mediaType": kind, "config": config, "layers": [layer]}
manifest = blob(json.dumps(manifest).encode(), kind)
manifest["annotations"] = {"io.containerd.image.name": reference}
files = dict(blobs)
files["oci-layout"] = b'{"imageLayoutVersion":"1.0.0"}'
files["index.json"] = json.dumps({"schemaVersion": 2, "manifests": [manifest]}).encode()
with tarfile.open(target, "w") as tar:
    for name, data in files.items():
        entry = tarfile.TarInfo(name)
        entry.size = len(data)
        tar.addfile(entry, io.BytesIO(data))
EOF
