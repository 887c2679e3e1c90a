# First process of a capsule (capsule.py starts it in new namespaces): mounts what is the node's own, then waits.
# Arguments: name, its directory, directory of Debian's unpacked programs.
set -eu
name=$1 directory=$2 tools=$3
read -r pid _ < /proc/self/stat # /proc is the machine's still, and so is the id

mount --make-rprivate /
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t tmpfs -o mode=755 tmpfs /sys/fs/cgroup
for controller in cpu cpuacct cpuset memory devices freezer blkio pids; do
    mkdir /sys/fs/cgroup/$controller
    mount -t cgroup -o $controller cgroup /sys/fs/cgroup/$controller
done
mkdir /sys/fs/cgroup/systemd /sys/fs/cgroup/unified
mount -t cgroup -o none,name=systemd cgroup /sys/fs/cgroup/systemd
mount -t cgroup2 cgroup2 /sys/fs/cgroup/unified

mount -t overlay overlay -o "lowerdir=$tools/usr:/usr" /usr
mount -t tmpfs -o mode=755 tmpfs /run
mkdir -p /run/netns /run/lock /run/xtables
mkdir -p "$directory"/etc "$directory"/work "$directory"/log
mount -t overlay overlay -o "lowerdir=/etc,upperdir=$directory/etc,workdir=$directory/work" /etc
mount --bind "$directory/log" /var/log
# kubelet and CNI write outside their directories too: to places that all nodes of a machine would share
for shared in /var/lib/kubelet /var/lib/cni /opt; do
    mkdir -p "$directory/own$shared" "$shared"
    mount --bind "$directory/own$shared" "$shared"
done

hostname "$name"
ip link set lo up
echo 1 > /proc/sys/net/ipv4/ip_forward
echo 1 > /proc/sys/net/bridge/bridge-nf-call-iptables
mount --make-rshared / # volumes that kubelet mounts reach the containers
echo "$pid" > "$directory/pid.new"
mv "$directory/pid.new" "$directory/pid"
# a shell that waits buries the orphans of its process namespace
while :; do
    sleep 86400 &
    wait $! || true
done
