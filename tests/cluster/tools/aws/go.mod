module anneal.dev/tests/aws

go 1.26.0

// No program: the definition of its node class.
require github.com/aws/karpenter-provider-aws v1.14.1
