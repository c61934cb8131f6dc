#!/bin/busybox sh
# The first program of the box: finds the root file system, and hands over to what was brought.
/bin/busybox mount -t devtmpfs dev /dev
/bin/busybox insmod /virtio_blk.ko
if /bin/busybox mount -t ext4 -o noatime /dev/vda /root &&
    /bin/busybox mount -t ext4 -o noatime /dev/vdb /root/mnt; then
    /bin/busybox mount --move /dev /root/dev
    exec /bin/busybox switch_root /root /bin/sh /mnt/box/start
fi
echo "the box: its disks do not mount"
/bin/busybox poweroff -f
