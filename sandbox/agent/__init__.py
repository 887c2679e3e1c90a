"""The sandbox's kubelet: runs the engine behind each bound pod as a local process, and tells Kubernetes how it is.

addresses  which loopback address a pod's name stands for
pod        a pod as its processes need it: environment, files, volumes, peers
probes     whether a container is ready, by the pod's own probe
status     what `kubectl get pods` shows
runner     the life of one pod
access     logs, port-forward and exec of a pod
watcher    finds pods and volumes, and gives each pod its runner
"""
