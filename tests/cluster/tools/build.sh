#!/bin/bash
# Builds programs of a Kubernetes from the Go modules beside this, each once: build.sh FOLDER NAME…
# The name `node` stands for all that a node consists of. A changed go.mod or go.sum builds anew. Several
# processes may ask at once: one builds, the others wait.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
folder=$1
shift
[ "${1:-}" != node ] || set -- etcd kube-apiserver kube-controller-manager kube-scheduler kubelet kube-proxy \
  kubectl containerd containerd-shim-runc-v2 ctr runc host-local bridge loopback portmap registry "${@:2}"
mkdir -p "$folder/cni"
export GOFLAGS='-buildvcs=false -trimpath -mod=readonly'
for name in "$@"; do
  program=$folder/$name tags='' static='' cgo=0 version=''
  case $name in
  etcd) module=etcd package=go.etcd.io/etcd/server/v3 ;;
  kube*)
    module=kubernetes package=k8s.io/kubernetes/cmd/$name
    for p in k8s.io/component-base/version k8s.io/client-go/pkg/version; do
      version+=" -X $p.gitVersion=v1.37.2 -X $p.gitMajor=1 -X $p.gitMinor=37 -X $p.gitTreeState=clean"
    done
    ;;
  containerd | containerd-shim-runc-v2 | ctr)
    module=containerd package=github.com/containerd/containerd/v2/cmd/$name
    version=' -X github.com/containerd/containerd/v2/version.Version=2.4.2'
    ;;
  runc)
    module=runc package=github.com/opencontainers/runc cgo=1
    tags=seccomp,netgo,osusergo static=' -extldflags -static'
    ;;
  host-local) module=cni package=github.com/containernetworking/plugins/plugins/ipam/$name ;;
  bridge | loopback) module=cni package=github.com/containernetworking/plugins/plugins/main/$name ;;
  portmap) module=cni package=github.com/containernetworking/plugins/plugins/meta/$name ;;
  registry) module=registry package=github.com/distribution/distribution/v3/cmd/registry ;;
  helm) module=helm package=helm.sh/helm/v4/cmd/helm ;;
  karpenter) module=karpenter package=sigs.k8s.io/karpenter/kwok ;;
  kueue) module=kueue package=sigs.k8s.io/kueue/cmd/kueue ;;
  prometheus | promtool)
    # Without the clouds' ways to find targets, and without the pages that need a JavaScript build.
    module=prometheus package=github.com/prometheus/prometheus/cmd/$name tags=remove_all_sd
    ;;
  *)
    echo "there is no $name to build" >&2
    exit 2
    ;;
  esac
  [ $module != cni ] || program=$folder/cni/$name
  exec 9>"$folder/$name.lock"
  flock 9
  wanted=$(cat "$here/$module/go.mod" "$here/$module/go.sum" | sha256sum | cut -d' ' -f1)
  if [ -x "$program" ] && [ "$(cat "$folder/$name.sum" 2>/dev/null)" = "$wanted" ]; then
    continue
  fi
  echo "building $name"
  (
    cd "$here/$module"
    CGO_ENABLED=$cgo nice -n 10 go build -tags "$tags" -ldflags "-s -w$version$static" \
      -o "$program.unfinished" $package
  )
  mv "$program.unfinished" "$program"
  printf %s "$wanted" >"$folder/$name.sum"
done
