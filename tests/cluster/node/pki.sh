#!/bin/bash
# Keys and certificates of a cluster: pki.sh FOLDER NODE_IP. They protect nothing but a test.
set -euo pipefail
mkdir -p "$1" && cd "$1"
ip=$2
key() { openssl ecparam -name prime256v1 -genkey -noout | openssl pkcs8 -topk8 -nocrypt -out "$1.key"; }
key ca
openssl req -x509 -new -key ca.key -subj /CN=anneal-test -days 3650 -out ca.crt 2>/dev/null
# NAME SUBJECT [EXTENSIONS]
sign() {
  key "$1"
  openssl req -new -key "$1.key" -subj "$2" -out "$1.csr" 2>/dev/null
  openssl x509 -req -in "$1.csr" -CA ca.crt -CAkey ca.key -CAcreateserial -days 3650 -out "$1.crt" \
    -extfile <(printf '%s\n' "extendedKeyUsage=serverAuth,clientAuth" "${3:-}") 2>/dev/null
  rm "$1.csr"
}
names=DNS:localhost,DNS:kubernetes,DNS:kubernetes.default,DNS:kubernetes.default.svc
names=$names,DNS:kubernetes.default.svc.cluster.local,IP:127.0.0.1,IP:$ip,IP:10.96.0.1
sign apiserver /CN=kube-apiserver "subjectAltName=$names"
sign kubelet-server /CN=node1 "subjectAltName=DNS:node1,IP:$ip"
sign apiserver-kubelet /O=system:masters/CN=apiserver-kubelet
sign front-proxy /CN=front-proxy-client
sign admin /O=system:masters/CN=admin
sign kcm /CN=system:kube-controller-manager
sign scheduler /CN=system:kube-scheduler
sign kubelet /O=system:nodes/CN=system:node:node1
sign proxy /CN=system:kube-proxy
openssl genrsa -out sa.key 2048 2>/dev/null
openssl rsa -in sa.key -pubout -out sa.pub 2>/dev/null
for user in admin kcm scheduler kubelet proxy; do
  cat > $user.kubeconfig <<EOF
apiVersion: v1
kind: Config
current-context: it
contexts: [{name: it, context: {cluster: it, user: it}}]
clusters: [{name: it, cluster: {server: "https://127.0.0.1:6443", certificate-authority: "$PWD/ca.crt"}}]
users: [{name: it, user: {client-certificate: "$PWD/$user.crt", client-key: "$PWD/$user.key"}}]
EOF
done
touch done
