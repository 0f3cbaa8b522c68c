#!/bin/bash
# A whole Kubernetes on this machine, with no Docker: cluster.sh up|down|status|in FOLDER BIN
# `in FOLDER BIN COMMAND…` runs a command in the cluster's network. Needs root, nft, ip, openssl, gcc.
set -euo pipefail
what=$1 dir=$2 bin=$3
shift 3
here=$(cd "$(dirname "$0")" && pwd)
ip=10.99.0.1
ns=anneal-test
pid() { cat "$dir/node.pid" 2>/dev/null; }
runs() { [ -n "$(pid)" ] && kill -0 "$(pid)" 2>/dev/null; }
api() {
  nsenter --net=/run/netns/$ns curl -sf --cacert "$dir/pki/ca.crt" --cert "$dir/pki/admin.crt" \
    --key "$dir/pki/admin.key" "https://127.0.0.1:6443$1"
}
node_ready() {
  api /api/v1/nodes/node1 2>/dev/null | python3 -c '
import json, sys
node = json.load(sys.stdin)
sys.exit(not any(c["type"] == "Ready" and c["status"] == "True" for c in node["status"]["conditions"]))' 2>/dev/null
}

case $what in
up)
  runs && { echo "it is up already"; exit 0; }
  if [ -e /run/netns/$ns ] && [ -n "$(ip netns pids $ns)" ]; then
    echo "another cluster is up on this machine: end it first" >&2
    exit 1
  fi
  mkdir -p "$dir"/{log,state}
  [ -e "$dir/pki/done" ] || "$here/pki.sh" "$dir/pki" $ip
  "$here/config.sh" "$dir" "$bin" $ip
  [ -e "$dir/pause.tar" ] || "$here/pause.sh" "$dir/pause.tar"
  [ -e /run/netns/$ns ] || ip netns add $ns
  [ -e "$dir/sysctl" ] || for s in vm.overcommit_memory kernel.panic kernel.panic_on_oops; do
    sysctl $s | sed 's/ = /=/'
  done >"$dir/sysctl"
  # Not `ip netns exec`: that one puts another /sys in place, without the control groups.
  setsid nsenter --net=/run/netns/$ns unshare --mount --pid --fork --kill-child \
    --propagation private "$here/node.sh" "$dir" "$bin" $ip </dev/null >"$dir/log/node.log" 2>&1 &
  echo $! >"$dir/node.pid"
  for _ in $(seq 600); do
    node_ready && break
    runs || { echo "the node ended; see $dir/log"; exit 1; }
    sleep 0.2
  done
  node_ready || { echo "the node is not ready; see $dir/log"; exit 1; }
  echo "up: KUBECONFIG=$dir/pki/admin.kubeconfig nsenter --net=/run/netns/$ns kubectl get nodes"
  ;;
down)
  if runs; then
    kill -KILL "$(pid)"
    while runs; do sleep 0.1; done
  fi
  rm -f "$dir/node.pid"
  for _ in 1 2 3 4 5 6 7 8; do
    find /sys/fs/cgroup/*/anneal-test -depth -type d -exec rmdir {} \; 2>/dev/null || true
    ls -d /sys/fs/cgroup/*/anneal-test >/dev/null 2>&1 || break
    sleep 0.3
  done
  ip netns del $ns 2>/dev/null || true
  [ ! -e "$dir/sysctl" ] || { sysctl -q -p "$dir/sysctl"; rm "$dir/sysctl"; }
  rm -rf "$dir/state/var/lib/kubelet" "$dir/state/var/log"
  echo down
  ;;
status)
  if runs && node_ready; then echo "up: node1 is ready"; elif runs; then echo "starting"; else echo down; fi
  ;;
in)
  export KUBECONFIG=$dir/pki/admin.kubeconfig PATH=$bin:$PATH
  exec nsenter --net=/run/netns/$ns "$@"
  ;;
*)
  echo "usage: cluster.sh up|down|status|in FOLDER BIN" >&2
  exit 2
  ;;
esac
