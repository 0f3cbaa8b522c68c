#!/bin/bash
# The image that holds a pod's namespaces: pause.sh TAR. One static program, in an OCI layout.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cat >"$work/pause.c" <<'EOF'
#include <signal.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>
static void end(int signal) { (void)signal; _exit(0); }
static void reap(int signal) { (void)signal; while (waitpid(-1, NULL, WNOHANG) > 0) {} }
int main(void) {
  signal(SIGINT, end);
  signal(SIGTERM, end);
  signal(SIGCHLD, reap);
  for (;;) pause();
}
EOF
gcc -Os -static -s -o "$work/pause" "$work/pause.c"
python3 - "$work/pause" "$1" <<'EOF'
import hashlib, io, json, sys, tarfile

program, target = sys.argv[1:]
blobs = {}

def blob(data, kind):
    digest = hashlib.sha256(data).hexdigest()
    blobs["blobs/sha256/" + digest] = data
    return {"mediaType": kind, "digest": "sha256:" + digest, "size": len(data)}

layer = io.BytesIO()
with tarfile.open(fileobj=layer, mode="w") as tar:
    entry = tar.gettarinfo(program, "pause")
    entry.uid = entry.gid = entry.mtime = 0
    entry.uname = entry.gname = ""
    entry.mode = 0o755
    with open(program, "rb") as file:
        tar.addfile(entry, file)
layer = blob(layer.getvalue(), "application/vnd.oci.image.layer.v1.tar")
config = {"architecture": "amd64", "os": "linux", "config": {"Entrypoint": ["/pause"], "User": "65535:65535"},
          "rootfs": {"type": "layers", "diff_ids": [layer["digest"]]}}
config = blob(json.dumps(config).encode(), "application/vnd.oci.image.config.v1+json")
kind = "application/vnd.oci.image.manifest.v1+json"
manifest = blob(json.dumps({"schemaVersion": 2, "mediaType": kind, "config": config, "layers": [layer]}).encode(), kind)
manifest["annotations"] = {"io.containerd.image.name": "localhost/pause:test"}
files = dict(blobs)
files["oci-layout"] = b'{"imageLayoutVersion":"1.0.0"}'
files["index.json"] = json.dumps({"schemaVersion": 2, "manifests": [manifest]}).encode()
with tarfile.open(target, "w") as tar:
    for name, data in files.items():
        entry = tarfile.TarInfo(name)
        entry.size = len(data)
        tar.addfile(entry, io.BytesIO(data))
EOF
