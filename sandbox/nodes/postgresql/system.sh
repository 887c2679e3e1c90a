# Makes the file system of the images in a mount namespace of its own (image.py).
# Arguments: directory of Debian's unpacked builder, the archive to write, the packages with commas between.
set -eu
builder=$1 target=$2 packages=$3
mount -t overlay overlay -o "lowerdir=$builder/usr:/usr" /usr
TMPDIR=$(mktemp -d -p "$(dirname "$target")")
export TMPDIR
trap 'rm -rf "$TMPDIR"' EXIT
# No cluster of Debian's own. The user has the number that Bitnami's chart runs its pods as. The compiler of queries and
# Perl are half of all bytes, which every node gets a copy of: the server does without the former when its library is gone.
mmdebstrap --quiet --variant=minbase --dpkgopt=force-unsafe-io --dpkgopt=force-confold \
    --dpkgopt='path-exclude=/usr/share/doc/*' --dpkgopt='path-exclude=/usr/share/man/*' \
    --dpkgopt='path-exclude=/usr/share/locale/*' --include="$packages" \
    --essential-hook='mkdir -p "$1/etc/postgresql-common"; echo "create_main_cluster = false" > "$1/etc/postgresql-common/createcluster.conf"' \
    --customize-hook='chroot "$1" usermod -u 1001 postgres; chroot "$1" groupmod -g 1001 postgres' \
    --customize-hook='rm -rf "$1"/usr/lib/*/libLLVM* "$1"/usr/lib/*/libz3* "$1"/usr/lib/*/perl "$1"/usr/share/perl' \
    --customize-hook='rm -rf "$1"/usr/lib/postgresql/17/lib/llvmjit* "$1"/usr/lib/postgresql/17/lib/bitcode "$1"/usr/share/i18n' \
    trixie "$target" http://deb.debian.org/debian
