#!/bin/sh
# Run by mmdebstrap with the throw-away root as $1. The packages to fetch are appended as a call of pack.
set -eu
root=$1
out=$(dirname "$0")

pack() {
    # A proxy may stand before the registry that only this host knows to trust.
    cp /etc/ssl/certs/ca-certificates.crt "$root/tmp/trusted.crt" || : >"$root/tmp/trusted.crt"
    chroot "$root" env HOME=/tmp npm_config_cafile=/tmp/trusted.crt NODE_EXTRA_CA_CERTS=/tmp/trusted.crt \
        COREPACK_ENABLE_DOWNLOAD_PROMPT=0 \
        sh -euc 'cd /tmp && corepack npm@11 pack --silent --ignore-scripts "$@"' pack "$@"
    mv "$root"/tmp/*.tgz "$out/"
}
