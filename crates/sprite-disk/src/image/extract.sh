#!/bin/sh
# Extracts a tarball from standard input into $1, seeing nothing of the host but the programs below /usr, which it
# cannot change, and $1. Started with mount and process namespaces of its own; $2 is an empty directory.
set -eu
target=$1
stage=$2

mount -t tmpfs -o size=1m,mode=0755,nosuid,nodev tmpfs "$stage"
mkdir "$stage/target" "$stage/old" "$stage/proc" "$stage/usr"
mount --bind /usr "$stage/usr"
mount -o remount,bind,ro,nosuid,nodev "$stage/usr"
for name in bin sbin lib lib32 lib64 libx32; do
    if [ -L "/$name" ]; then
        cp -P "/$name" "$stage/$name"
    elif [ -d "/$name" ]; then
        mkdir "$stage/$name"
        mount --bind "/$name" "$stage/$name"
        mount -o remount,bind,ro,nosuid,nodev "$stage/$name"
    fi
done
mount --bind "$target" "$stage/target"
# Device nodes of the archive become files of the image; here nobody can open them.
mount -o remount,bind,nosuid,nodev,noexec "$stage/target"

# Only for umount and mount, which look there.
mount -t proc proc "$stage/proc"

cd "$stage"
pivot_root . old
cd /
umount -l /old
mount -o remount,bind,ro /
umount -l /proc

exec setpriv --no-new-privs --inh-caps=-all \
    --bounding-set=-all,+chown,+dac_override,+fowner,+fsetid,+mknod,+setfcap \
    tar --extract --file=- --directory=/target --numeric-owner --same-owner --preserve-permissions \
    --delay-directory-restore \
    --xattrs --xattrs-include='security.capability' --xattrs-include='user.*' \
    --anchored --exclude='dev/*' --exclude='./dev/*' --warning=no-timestamp
