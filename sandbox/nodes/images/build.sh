# Builds and tries the worker image in a mount namespace of its own (build.py). Arguments: what to do, directory of its state,
# directory of Debian's unpacked builder, the machine's CA bundle, the project; then what the action takes.
set -eu
action=$1 state=$2 builder=$3 bundle=$4 project=$5
shift 5
mount -t overlay overlay -o "lowerdir=$builder/usr:/usr" /usr
mkdir -p "$state/root" "$state/run" "$state/tmp"
export TMPDIR=$state/tmp BUILDAH_ISOLATION=chroot CONTAINERS_REGISTRIES_CONF=$state/registries.conf
echo 'unqualified-search-registries = []' > "$state/registries.conf"
echo '{"default": [{"type": "insecureAcceptAnything"}]}' > "$state/policy.json"
printf '[global]\ncert = /run/ca.pem\n' > "$state/pip.conf"
store="--root $state/root --runroot $state/run --storage-driver overlay"
signed="--signature-policy $state/policy.json"
debian=docker.io/library/debian:trixie-slim golang=docker.io/library/golang:1.26-trixie worker=localhost/isa-cloud/worker:0.1.0

case $action in
bases) # under the names that the Containerfile asks for, since no image registry is
    if [ ! -e "$state/debian.tar" ]; then
        mmdebstrap --quiet --variant=minbase --dpkgopt=force-unsafe-io --dpkgopt='path-exclude=/usr/share/doc/*' \
            --dpkgopt='path-exclude=/usr/share/man/*' --dpkgopt='path-exclude=/usr/share/locale/*' \
            trixie "$state/debian.new.tar" http://deb.debian.org/debian
        mv "$state/debian.new.tar" "$state/debian.tar"
    fi
    if ! buildah $store inspect --type image $debian > /dev/null 2>&1; then
        container=$(buildah $store from scratch)
        buildah $store add --quiet "$container" "$state/debian.tar" /
        buildah $store commit --quiet $signed "$container" $debian
        buildah $store rm "$container"
    fi
    if ! buildah $store inspect --type image $golang > /dev/null 2>&1; then
        container=$(buildah $store from --pull-never $debian)
        buildah $store add --quiet "$container" "$(go env GOROOT)" /usr/local/go
        buildah $store add --quiet "$container" "$bundle" /etc/ssl/certs/ca-certificates.crt
        # modules lie where this machine has them: the path is part of what Go's cache goes by
        buildah $store config --env PATH=/usr/local/go/bin:/usr/bin:/bin --env "GOPATH=$(go env GOPATH)" "$container"
        buildah $store commit --quiet $signed "$container" $golang
        buildah $store rm "$container"
    fi
    ;;
build) # the files are mounted and leave nothing in the image; a registry may be reached through a CA of this machine
    cd "$project"
    buildah $store bud --pull-never --layers $signed -f deployments/worker/Containerfile -t $worker \
        -v "$bundle:/run/ca.pem:ro" -v "$state/pip.conf:/etc/pip.conf:ro" \
        -v "$(go env GOCACHE):/root/.cache/go-build" -v "$(go env GOMODCACHE):$(go env GOMODCACHE)" .
    ;;
export) # for `ctr images import`, which takes the name from Docker's format. Layers stay unpacked: packing them costs minutes
    buildah $store push --quiet $signed $worker "docker-archive:$1:$2"
    ;;
run) # as worker.yaml runs it: user 10001, root file system read-only but for the two volumes; a network of its own, loopback
    # alone, and processes of its own, which end with it
    container=$(buildah $store from --pull-never $worker)
    root=$(buildah $store mount "$container")
    trap 'umount -R "$root" || true; buildah $store rm "$container" > /dev/null' EXIT
    mount --bind "$root" "$root"
    mount -o remount,bind,ro "$root"
    mount --bind /dev "$root/dev"
    for volume in /tmp /home/isa; do mount -t tmpfs -o mode=1777 tmpfs "$root$volume"; done
    env -i HOME=/home/isa $(buildah $store inspect --type image --format '{{range .OCIv1.Config.Env}}{{println .}}{{end}}' $worker) "$@" \
        unshare --net --pid --fork --kill-child bash -c \
        '/sbin/ip link set lo up; mount -t proc proc "$1/proc"; exec "$0" --userspec=10001:10001 "$@"' "$(command -v chroot)" \
        "$root" bash -c 'cd /opt/isa-cloud && eval "$SCRIPT"'
    ;;
esac
