#!/bin/sh
# Run by mmdebstrap with the new root as $1, after the packages are installed. What needs a program of the new
# system is done here; plain files are written by finish.rs.
set -eu
root=$1
work=$(dirname "$0")

# Recommended packages were left out of the image. Whoever installs more gets what Debian recommends.
rm -f "$root/etc/apt/apt.conf.d/99mmdebstrap"

# What was installed at risk is synced with the image; what a sprite installs is synced by dpkg.
sed -i '/^force-unsafe-io$/d' "$root/etc/dpkg/dpkg.cfg.d/99mmdebstrap"

if ls "$work"/certificates/*.crt >/dev/null 2>&1; then
    mkdir -p "$root/usr/local/share/ca-certificates"
    cp "$work"/certificates/*.crt "$root/usr/local/share/ca-certificates/"
    chroot "$root" update-ca-certificates
fi

if [ -x "$root/usr/bin/localedef" ] && [ -e "$root/usr/share/i18n/locales/en_US" ]; then
    chroot "$root" localedef -i en_US -f UTF-8 en_US.UTF-8
fi

if [ -e "$work/node.tgz" ]; then
    cp "$work/node.tgz" "$work/npm.tgz" "$root/tmp/"
    # The package has what Node installs below a prefix, in the directory "package".
    chroot "$root" tar -xzf /tmp/node.tgz -C /usr/local --strip-components=1 --no-same-owner \
        package/bin package/include package/share
    mkdir -p "$root/usr/local/lib/node_modules/npm"
    chroot "$root" tar -xzf /tmp/npm.tgz -C /usr/local/lib/node_modules/npm --strip-components=1 --no-same-owner
    chmod 0755 "$root/usr/local/bin/node" "$root/usr/local/lib/node_modules/npm/bin/npm-cli.js" \
        "$root/usr/local/lib/node_modules/npm/bin/npx-cli.js"
    ln -s ../lib/node_modules/npm/bin/npm-cli.js "$root/usr/local/bin/npm"
    ln -s ../lib/node_modules/npm/bin/npx-cli.js "$root/usr/local/bin/npx"
    rm -rf "$root/tmp/node.tgz" "$root/tmp/npm.tgz" "$root/usr/local/share/doc" "$root/usr/local/share/man" \
        "$root/usr/local/lib/node_modules/npm/man" "$root/usr/local/lib/node_modules/npm/docs"
    chroot "$root" node --version
    chroot "$root" npm --version
fi

# As Debian does it: members of staff, such as sprite, install below /usr/local without being root.
chroot "$root" chgrp -R staff /usr/local
chroot "$root" find /usr/local -type d -exec chmod 2775 {} +

rm -rf "$root"/var/lib/apt/lists/* "$root"/var/cache/apt/*.bin "$root"/var/cache/apt/archives/*.deb \
    "$root"/var/cache/debconf/*-old "$root"/var/log/* "$root"/root/.npm "$root"/root/.cache
