#!/bin/bash
# A whole Kubernetes on this machine, with no Docker, and two registries in it:
#   cluster.sh check                      what this machine lacks for it, if anything
#   cluster.sh up FOLDER BIN BUILDS       BIN holds what tools/build.sh made; our images are made of BUILDS
#   cluster.sh in FOLDER BIN COMMAND...   run a command in the cluster's network
#   cluster.sh status|down FOLDER BIN
set -euo pipefail
if [ "${1:-}" = check ]; then
  [ "$(id -u)" = 0 ] || echo "it takes root, to make namespaces"
  while read -r program probe package; do
    "$program" "$probe" </dev/null >/dev/null 2>&1 || echo "there is no $program (package $package)"
  done <<EOF
go version golang
gcc --version gcc
nft --version nftables
ip -V iproute2
nsenter --version util-linux
openssl version openssl
curl --version curl
python3 --version python3
ldd --version libc-bin
EOF
  [ -d /sys/fs/cgroup/memory ] || echo "it takes control groups of version 1"
  [ -e /usr/include/seccomp.h ] || echo "there is no seccomp.h to build runc with (package libseccomp-dev)"
  exit 0
fi
what=$1 dir=$2 bin=$3
shift 3
here=$(cd "$(dirname "$0")" && pwd)
ip=10.99.0.1
ns=anneal-test
pid() { cat "$dir/node.pid" 2>/dev/null; }
# The number alone may be another process's by now.
runs() { [ -n "$(pid)" ] && grep -qsF "$here/node.sh" "/proc/$(pid)/cmdline"; }
inside() { KUBECONFIG=$dir/pki/admin.kubeconfig PATH=$bin:$PATH nsenter --net=/run/netns/$ns "$@"; }
node_ready() {
  [ "$(inside kubectl get node node1 --request-timeout=5s \
    -o 'jsonpath={.status.conditions[?(@.type=="Ready")].status}' 2>/dev/null)" = True ]
}

# Our images, into the registry that is open; what it has already is not sent again.
images() {
  until inside curl -sf http://$ip:5000/v2/ >/dev/null; do
    runs || { echo "the node ended; see $dir/log" >&2; exit 1; }
    sleep 0.1
  done
  inside "$builds/images" one "$dir/pause" $ip:5000/anneal/pause:test --plain-http
  inside "$builds/images" all --push $ip:5000/anneal --plain-http
}

case $what in
up)
  builds=$1
  if runs; then
    images
    echo "it is up already"
    exit 0
  fi
  if [ -e /run/netns/$ns ] && [ -n "$(ip netns pids $ns)" ]; then
    echo "another cluster is up on this machine: end it first" >&2
    exit 1
  fi
  mkdir -p "$dir"/{log,state}
  [ -e "$dir/pki/done" ] || "$here/pki.sh" "$dir/pki" $ip
  "$here/config.sh" "$dir" "$bin" $ip
  [ -e "$dir/pause" ] || "$here/pause.sh" "$dir/pause"
  [ -e /run/netns/$ns ] || ip netns add $ns
  [ -e "$dir/sysctl" ] || for s in vm.overcommit_memory kernel.panic kernel.panic_on_oops; do
    sysctl $s | sed 's/ = /=/'
  done >"$dir/sysctl"
  # Not `ip netns exec`: that one puts another /sys in place, without the control groups.
  setsid nsenter --net=/run/netns/$ns unshare --mount --pid --fork --kill-child \
    --propagation private "$here/node.sh" "$dir" "$bin" $ip </dev/null >"$dir/log/node.log" 2>&1 &
  echo $! >"$dir/node.pid"
  images
  for _ in $(seq 600); do
    node_ready && break
    runs || { echo "the node ended; see $dir/log" >&2; exit 1; }
    sleep 0.2
  done
  node_ready || { echo "the node is not ready; see $dir/log" >&2; exit 1; }
  echo "up"
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
  inside "$@"
  ;;
*)
  echo "usage: cluster.sh check, or cluster.sh up|down|status|in FOLDER BIN" >&2
  exit 2
  ;;
esac
