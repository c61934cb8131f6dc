# The box's process 1. Its disks: vda the root file system, of which nothing is kept; vdb what was brought; vdc
# what is taken home; vdd room for data. /mnt/box/places names the directories of the host that are wanted where they are there.
export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
export HOME=/root LANG=C.UTF-8 TMPDIR=/var/tmp
mount -t proc proc /proc
mount -t sysfs sys /sys
mkdir -p /dev/pts /dev/shm /results
mount -t devpts -o ptmxmode=666,gid=5,mode=620 devpts /dev/pts
mount -t tmpfs shm /dev/shm
mount -t tmpfs -o mode=755 run /run
mount -t tmpfs -o mode=1777 tmp /tmp
mount -t cgroup2 -o nsdelegate cgroup2 /sys/fs/cgroup
for link in fd:/proc/self/fd stdin:/proc/self/fd/0 stdout:/proc/self/fd/1 stderr:/proc/self/fd/2; do
    ln -sf "${link#*:}" "/dev/${link%%:*}"
done
mount -o noatime /dev/vdc /results
modprobe -a kvm_amd virtio_net loop tun veth bridge nf_tables xfs
hostname box
ip link set lo up
if ip link set eth0 up 2>/dev/null; then
    # What the emulator offers to every system that it runs.
    ip address add 10.0.2.15/24 dev eth0
    ip route add default via 10.0.2.2
    echo nameserver 10.0.2.3 >/etc/resolv.conf
fi
sysctl -q -w kernel.panic=1
while read -r place; do
    mkdir -p "$place"
    mount --bind "/mnt/at$place" "$place"
done </mnt/box/places
for guest in /var/cache/sprited/guest-*/; do
    # The kernel of machines was brought: apt here would offer that of another archive, and think for seconds.
    [ -d "$guest" ] && rm -f /usr/bin/apt-cache
done
# Data of servers on a file system that shares blocks, and beside it the cache, so that they link to what is in it
# and clone it: each test starts a server, and emulated copies take half a minute.
mkfs.xfs -q -K /dev/vdd
mount -o noatime /dev/vdd /var/tmp
chmod 1777 /var/tmp
if [ -d /var/cache/sprited ]; then
    export SPRITED_IMAGE_CACHE=/var/tmp/images
    cp -r --preserve=timestamps --sparse=always /var/cache/sprited "$SPRITED_IMAGE_CACHE"
fi
if [ -e /mnt/box/persons-terminal ]; then
    setsid -c sh /mnt/box/command </dev/hvc0 >/dev/hvc0 2>&1
    echo $? >/results/status
else
    # Programs that draw on terminals do not draw into a pipe.
    {
        timeout --kill-after=20 "$(cat /mnt/box/seconds)" sh /mnt/box/command </dev/null 2>&1
        echo $? >/results/status
    } | cat >/dev/hvc0
fi
cd /
dmesg >/results/dmesg
sync
umount /results || mount -o remount,ro /results
echo o >/proc/sysrq-trigger
# The power goes off in a moment. Until then this must not end, should the emulation fail `sleep`: the kernel would panic,
# and all be done once more.
while :; do sleep 60; done
