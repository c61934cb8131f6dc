#!/bin/sh
# Run by mmdebstrap with the throw-away root as $1. The packages to fetch are appended as a call of pack.
set -eu
root=$1
out=$(dirname "$0")

pack() {
    if [ -e /etc/ssl/certs/ca-certificates.crt ]; then
        cp /etc/ssl/certs/ca-certificates.crt "$root/tmp/host.crt"
    fi
    chroot "$root" sh -c 'cd /tmp && if [ -e host.crt ]; then export npm_config_cafile=/tmp/host.crt; fi &&
        npm pack --silent --ignore-scripts "$@"' pack "$@"
    mv "$root"/tmp/*.tgz "$out/"
}
