# First process of a capsule (capsule.py starts it in new namespaces): mounts what is the node's own, then waits.
# Arguments: name, its directory, directory of Debian's unpacked programs, CPUs and memory (KiB) that the node says it has.
set -eu
name=$1 directory=$2 tools=$3 cpus=$4 memory=$5
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

# kubelet believes what it reads here: production's requests do not fit two cores
if [ "$cpus" -gt 0 ]; then
    mount -t tmpfs tmpfs /sys/devices/system/cpu
    mount -t tmpfs tmpfs /sys/devices/system/node
    for number in $(seq 0 $((cpus - 1))); do
        topology=/sys/devices/system/cpu/cpu$number/topology
        mkdir -p "$topology"
        echo "$number" > "$topology/core_id"
        echo 0 > "$topology/physical_package_id"
    done
    echo "0-$((cpus - 1))" | tee /sys/devices/system/cpu/online /sys/devices/system/cpu/possible > /dev/null
fi
if [ "$memory" -gt 0 ]; then
    sed "s/^MemTotal:.*/MemTotal: $memory kB/" /proc/meminfo > /run/meminfo
    mount --bind /run/meminfo /proc/meminfo
fi

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
