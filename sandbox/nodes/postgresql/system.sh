# Makes the file system of the images in a mount namespace of its own (image.py).
# Arguments: directory of Debian's unpacked builder, the archive to write, the packages with commas between.
set -eu
builder=$1 target=$2 packages=$3
mount -t overlay overlay -o "lowerdir=$builder/usr:/usr" /usr
TMPDIR=$(mktemp -d -p "$(dirname "$target")")
export TMPDIR
trap 'rm -rf "$TMPDIR"' EXIT
# no cluster of Debian's own; and the user has the number that Bitnami's chart runs its pods as
mmdebstrap --quiet --variant=minbase --dpkgopt=force-unsafe-io --dpkgopt=force-confold \
    --dpkgopt='path-exclude=/usr/share/doc/*' --dpkgopt='path-exclude=/usr/share/man/*' \
    --dpkgopt='path-exclude=/usr/share/locale/*' --include="$packages" \
    --essential-hook='mkdir -p "$1/etc/postgresql-common"; echo "create_main_cluster = false" > "$1/etc/postgresql-common/createcluster.conf"' \
    --customize-hook='chroot "$1" usermod -u 1001 postgres; chroot "$1" groupmod -g 1001 postgres' \
    trixie "$target" http://deb.debian.org/debian
