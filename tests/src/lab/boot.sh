# Boots a system as the lab's machine, in namespaces of its own but for the network's, in which this runs. What the
# machine writes is in memory, and is there again when it boots the next time, which it does for each line on stdin.
# Says the process id of each boot's init.
set -eu
system=$1 dir=$2 cgroup=$3

mkdir "$cgroup"
echo $$ >"$cgroup/cgroup.procs"
mkdir "$dir"
mount -t tmpfs machine "$dir"
mkdir "$dir/upper" "$dir/work" "$dir/root"
mount -t overlay machine -o "lowerdir=$system,upperdir=$dir/upper,workdir=$dir/work" "$dir/root"
cd "$dir/root"
echo nameserver 127.0.0.1 >etc/resolv.conf
# There is no console to log in at, nor a kernel of its own to configure.
ln -s /dev/null etc/systemd/system/console-getty.service

# The kernel's own file systems, and then init. /proc/self is the shell's own here, as the old /proc has it.
# shellcheck disable=SC2016 # the inner shell expands it
init='
set -eu
read -r pid _ </proc/self/stat
mount -t proc proc proc
mount -t sysfs -o ro sysfs sys
mount -t cgroup2 cgroup2 sys/fs/cgroup
mount -t tmpfs -o mode=755 tmpfs run
mount -t tmpfs -o mode=755 tmpfs dev
for device in null zero full random urandom tty; do
    touch "dev/$device"
    mount --bind "/dev/$device" "dev/$device"
done
mkdir dev/pts dev/shm
mount -t devpts -o newinstance,ptmxmode=666 devpts dev/pts
ln -s pts/ptmx dev/ptmx
echo "$pid"
# Sandboxes take a root that is a mount.
pivot_root . mnt
umount --lazy /mnt
exec env -i container=lab PATH=/usr/sbin:/usr/bin /lib/systemd/systemd </dev/null >/dev/null 2>&1
'
while read -r _; do
    setpriv --pdeathsig KILL \
        unshare --mount --pid --cgroup --ipc --uts --fork --kill-child sh -c "$init" || true
    echo off
done
