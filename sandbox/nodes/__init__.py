"""The cluster's nodes, in two kinds.

`simulated` are objects that KWOK keeps alive. The other modules are real ones: kubelet, containerd, kube-proxy and
kube-router in namespaces and cgroups of their own on this machine (`python -m sandbox.nodes up`).
"""
