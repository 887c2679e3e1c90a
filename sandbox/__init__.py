"""The embedded cluster: a real Kubernetes control plane on this machine, on which the production tree is deployed."""
