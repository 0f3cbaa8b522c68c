#!/bin/bash
# The node: PID 1 of a pid and mount namespace, in a network namespace: node.sh FOLDER BIN NODE_IP.
# All that it starts ends with it, and nothing of the machine's /run and /var/lib is touched.
set -u
dir=$1 bin=$2 ip=$3
pki=$dir/pki log=$dir/log
export PATH=$bin:$bin/cni:/usr/sbin:/usr/bin:/sbin:/bin HOME=/root
mount -t proc proc /proc
mount --make-rshared /
for d in /var/lib/kubelet /var/lib/containerd /var/log/pods /var/log/containers /var/lib/registry-test; do
  mkdir -p $d "$dir/state$d"
  mount --bind "$dir/state$d" $d
  mount --make-rshared $d
done
for d in /run/containerd /run/runc /run/netns /run/cni-ipam /var/lib/cni /var/lib/etcd-test; do
  mkdir -p $d
  mount -t tmpfs -o mode=755 tmpfs $d
done
ip link set lo up
ip addr add $ip/32 dev lo 2>/dev/null
ip route add default dev lo 2>/dev/null
sysctl -qw net.ipv4.ip_forward=1
up() {
  local name=$1
  shift
  "$@" >"$log/$name.log" 2>&1 &
}
up etcd etcd --name test --data-dir /var/lib/etcd-test/d --listen-client-urls http://127.0.0.1:2379 \
  --advertise-client-urls http://127.0.0.1:2379 --listen-peer-urls http://127.0.0.1:2380 \
  --initial-advertise-peer-urls http://127.0.0.1:2380 --initial-cluster test=http://127.0.0.1:2380 \
  --unsafe-no-fsync --log-level warn
up kube-apiserver kube-apiserver --etcd-servers=http://127.0.0.1:2379 --bind-address=0.0.0.0 \
  --secure-port=6443 --advertise-address=$ip --service-cluster-ip-range=10.96.0.0/16 \
  --tls-cert-file=$pki/apiserver.crt --tls-private-key-file=$pki/apiserver.key \
  --client-ca-file=$pki/ca.crt --service-account-key-file=$pki/sa.pub \
  --service-account-signing-key-file=$pki/sa.key \
  --service-account-issuer=https://kubernetes.default.svc.cluster.local \
  --authorization-mode=Node,RBAC --enable-admission-plugins=NodeRestriction --allow-privileged=true \
  --kubelet-client-certificate=$pki/apiserver-kubelet.crt \
  --kubelet-client-key=$pki/apiserver-kubelet.key --kubelet-certificate-authority=$pki/ca.crt \
  --kubelet-preferred-address-types=InternalIP --requestheader-client-ca-file=$pki/ca.crt \
  --requestheader-allowed-names=front-proxy-client \
  --requestheader-username-headers=X-Remote-User --requestheader-group-headers=X-Remote-Group \
  --requestheader-extra-headers-prefix=X-Remote-Extra- --proxy-client-cert-file=$pki/front-proxy.crt \
  --proxy-client-key-file=$pki/front-proxy.key --enable-aggregator-routing=true
for c in cpu cpuacct cpuset memory devices freezer blkio pids systemd; do
  mkdir -p /sys/fs/cgroup/$c/anneal-test
done
for f in cpus mems; do
  cat /sys/fs/cgroup/cpuset/cpuset.$f >/sys/fs/cgroup/cpuset/anneal-test/cpuset.$f
done
up containerd containerd --config $dir/containerd.toml --log-level info
export OTEL_TRACES_EXPORTER=none
up registry registry serve $dir/registry.yaml
up registry-login registry serve $dir/registry-login.yaml
# The controllers end for good if they start before the roles are there.
until curl -sf --cacert $pki/ca.crt --cert $pki/admin.crt --key $pki/admin.key \
  https://127.0.0.1:6443/readyz >/dev/null; do
  sleep 0.1
done
kcm=$pki/kcm.kubeconfig
up kube-controller-manager kube-controller-manager --kubeconfig=$kcm \
  --authentication-kubeconfig=$kcm --authorization-kubeconfig=$kcm --root-ca-file=$pki/ca.crt \
  --service-account-private-key-file=$pki/sa.key --use-service-account-credentials \
  --cluster-signing-cert-file=$pki/ca.crt --cluster-signing-key-file=$pki/ca.key \
  --leader-elect=false --bind-address=127.0.0.1
sched=$pki/scheduler.kubeconfig
up kube-scheduler kube-scheduler --kubeconfig=$sched --authentication-kubeconfig=$sched \
  --authorization-kubeconfig=$sched --leader-elect=false --bind-address=127.0.0.1
until ctr version >/dev/null 2>&1; do sleep 0.1; done
up kubelet kubelet --config=$dir/kubelet.yaml --kubeconfig=$pki/kubelet.kubeconfig \
  --hostname-override=node1 --node-ip=$ip --v=2
up kube-proxy kube-proxy --config=$dir/kube-proxy.yaml
trap 'exit 0' TERM
while :; do
  wait
  sleep 5
done
