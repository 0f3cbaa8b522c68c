#!/bin/bash
# Configuration of kubelet, kube-proxy, containerd, network and registries: config.sh FOLDER BIN NODE_IP
set -euo pipefail
dir=$1 bin=$2 ip=$3
mkdir -p "$dir"/{certs.d,net.d} && cd "$dir"
echo "nameserver 10.96.0.10" > resolv.conf
cat > kubelet.yaml <<EOF
apiVersion: kubelet.config.k8s.io/v1beta1
kind: KubeletConfiguration
failCgroupV1: false
cgroupDriver: cgroupfs
cgroupRoot: /anneal-test
oomScoreAdj: 0
failSwapOn: false
authentication: {anonymous: {enabled: false}, webhook: {enabled: true}, x509: {clientCAFile: $dir/pki/ca.crt}}
authorization: {mode: Webhook}
tlsCertFile: $dir/pki/kubelet-server.crt
tlsPrivateKeyFile: $dir/pki/kubelet-server.key
containerRuntimeEndpoint: unix:///run/containerd/containerd.sock
clusterDNS: [10.96.0.10]
clusterDomain: cluster.local
resolvConf: $dir/resolv.conf
imageGCHighThresholdPercent: 100
evictionHard: {memory.available: 100Mi, nodefs.available: 1%, imagefs.available: 1%, nodefs.inodesFree: 1%, imagefs.inodesFree: 1%}
nodeStatusUpdateFrequency: 5s
syncFrequency: 10s
serializeImagePulls: false
EOF
cat > kube-proxy.yaml <<EOF
apiVersion: kubeproxy.config.k8s.io/v1alpha1
kind: KubeProxyConfiguration
clientConnection: {kubeconfig: $dir/pki/proxy.kubeconfig}
mode: nftables
oomScoreAdj: 0
clusterCIDR: 10.88.0.0/24
hostnameOverride: node1
conntrack: {maxPerCore: 0, tcpEstablishedTimeout: 0s, tcpCloseWaitTimeout: 0s}
EOF
cat > containerd.toml <<EOF
version = 3
root = "/var/lib/containerd"
state = "/run/containerd"
[grpc]
  address = "/run/containerd/containerd.sock"
[plugins."io.containerd.cri.v1.images".pinned_images]
  sandbox = "$ip:5000/anneal/pause:test"
[plugins."io.containerd.cri.v1.images".registry]
  config_path = "$dir/certs.d"
[plugins."io.containerd.cri.v1.runtime"]
  restrict_oom_score_adj = true
  [plugins."io.containerd.cri.v1.runtime".cni]
    bin_dirs = ["$bin/cni"]
    conf_dir = "$dir/net.d"
    use_internal_loopback = true
  [plugins."io.containerd.cri.v1.runtime".containerd.runtimes.runc]
    runtime_type = "io.containerd.runc.v2"
    [plugins."io.containerd.cri.v1.runtime".containerd.runtimes.runc.options]
      BinaryName = "$bin/runc"
      SystemdCgroup = false
EOF
cat > net.d/10-test.conflist <<EOF
{"cniVersion":"1.0.0","name":"test","plugins":[{"type":"bridge","bridge":"cni0","isGateway":true,"isDefaultGateway":true,"ipMasq":false,"hairpinMode":true,"ipam":{"type":"host-local","dataDir":"/run/cni-ipam","ranges":[[{"subnet":"10.88.0.0/24"}]]}},{"type":"portmap","capabilities":{"portMappings":true},"backend":"nftables"}]}
EOF
# The node's address is that of its registries, so that pods and containerd use one name for each: 5000 is
# open, 5001 takes a login, and at the others tests start and stop what they need.
for port in 5000 5001 5002 5003 5004 5005; do
  mkdir -p "certs.d/$ip:$port"
  cat > "certs.d/$ip:$port/hosts.toml" <<EOF
server = "http://$ip:$port"
[host."http://$ip:$port"]
  capabilities = ["pull", "resolve"]
EOF
done
# User `team`, password `open-sesame`.
echo 'team:$2b$04$nU/r4rDN8GjHJAGUclS6V.MNrqAlAXplqa8HIxXyhv3NrBYmWvUv2' > htpasswd
cat > registry.yaml <<EOF
version: 0.1
log: {level: info, formatter: text}
storage: {filesystem: {rootdirectory: /var/lib/registry-test/open}, delete: {enabled: true}}
http: {addr: "0.0.0.0:5000", secret: test}
EOF
cat > registry-login.yaml <<EOF
version: 0.1
log: {level: info, formatter: text}
storage: {filesystem: {rootdirectory: /var/lib/registry-test/login}, delete: {enabled: true}}
http: {addr: "0.0.0.0:5001", secret: test}
auth: {htpasswd: {realm: test, path: $dir/htpasswd}}
EOF
