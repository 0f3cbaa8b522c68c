module anneal.dev/tests/monitoring

go 1.26.0

// No program: the custom resource definitions in it.
require github.com/prometheus-operator/prometheus-operator v0.85.0
