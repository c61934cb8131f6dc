# Run with the new root file system as $1: adds the kernel, and makes an image of it all.
set -eu
kernel=$(chroot "$1" apt-cache show --no-all-versions linux-image-cloud-amd64 |
    sed -n 's/^Depends: \(linux-image-[^ ,]*\).*/\1/p')
# Only its files are wanted, not the tools that would install them.
chroot "$1" sh -ec "cd /tmp && apt-get download -q $kernel && dpkg-deb -x linux-image-*.deb /tmp/kernel"
modules=$(find "$1/tmp/kernel" -type d -path '*/lib/modules/*' -prune)
version=$(basename "$modules")
mkdir -p "$1/usr/lib/modules"
mv "$modules" "$1/usr/lib/modules/"
mv "$1/tmp/kernel/boot/vmlinuz-$version" "$1/boot/vmlinuz"
rm -rf "$1/tmp/kernel" "$1"/tmp/linux-image-*.deb
# Unpacked here: the box takes seconds for each of them.
chroot "$1" find "/usr/lib/modules/$version" -name '*.ko.xz' -exec xz -d {} +
chroot "$1" depmod "$version"
cp "$1/usr/lib/modules/$version/kernel/drivers/block/virtio_blk.ko" "$1/boot/"
rm -rf "$1"/var/cache/apt/*.bin "$1"/usr/share/doc "$1"/usr/share/man "$1"/usr/share/locale
# A second look at the same directory, without what is mounted in it now.
unshare --mount sh -ec 'mount --bind "$1" "$1/mnt"
mkfs.ext4 -q -F -m 0 -L box -E lazy_itable_init=1,lazy_journal_init=1 -d "$1/mnt" "$BOX_IMAGE"' sh "$1"
