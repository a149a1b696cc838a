# A node for a kubelet, in new namespaces on the caller's network: $1 is the rig's name, of which it
# gets a directory in each controller's tree on a machine with hybrid cgroups; the rest is a command
# that runs as pid 1. The caller's cgroup root and bpffs are the node's own.
set -e
rig=$1
shift
echo $$ >/sys/fs/cgroup/cgroup.procs
mkdir /run/controllers
controllers=$(sed -n 's/^[1-9][0-9]*:\([^:]*\):.*/\1/p' /proc/self/cgroup)
for controller in $controllers; do
    mount -t cgroup -o "$controller" cgroup /run/controllers
    mkdir -p "/run/controllers/$rig"
    if [ "$controller" = cpuset ]; then
        for file in cpuset.cpus cpuset.mems; do
            cat "/run/controllers/$file" >"/run/controllers/$rig/$file"
        done
    fi
    echo $$ >"/run/controllers/$rig/cgroup.procs"
    umount /run/controllers
done
export controllers
exec unshare --mount --uts --ipc --pid --cgroup --fork --kill-child --propagation private \
    sh -e -c '
hostname node1
mount --make-rshared /
mount -t proc proc /proc
# A kubelet wants these values, and the settings are those of the whole machine.
mkdir /run/settings
for setting in vm/overcommit_memory=1 vm/panic_on_oom=0 kernel/panic=10 kernel/panic_on_oops=1 \
    kernel/keys/root_maxkeys=1000000 kernel/keys/root_maxbytes=25000000; do
    file=/run/settings/$(echo "${setting%=*}" | tr / -)
    echo "${setting#*=}" >"$file"
    mount --bind "$file" "/proc/sys/${setting%=*}"
done
mkdir /run/bpffs
mount --move /sys/fs/bpf /run/bpffs 2>/dev/null || mount --bind /sys/fs/bpf /run/bpffs
while umount -l /sys/fs/cgroup 2>/dev/null; do :; done
mount -t sysfs sysfs /sys
mount --bind /run/bpffs /sys/fs/bpf
unified=/sys/fs/cgroup
if [ -n "$controllers" ]; then
    mount -t tmpfs -o mode=755 tmpfs /sys/fs/cgroup
    for controller in $controllers; do
        folder=/sys/fs/cgroup/${controller#name=}
        mkdir "$folder"
        mount -t cgroup -o "$controller" cgroup "$folder"
    done
    unified=/sys/fs/cgroup/unified
    mkdir $unified
fi
mount -t cgroup2 cgroup2 $unified
mount -t tmpfs tmpfs /var/log
exec "$@"
' sh "$@"
