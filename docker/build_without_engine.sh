#!/usr/bin/env bash
# Build the CPU image where no container engine runs: Debian's base from debootstrap, Dockerfile.cpu by
# buildah in a chroot. As root, with Debian's buildah and debootstrap; flags go to `buildah build`.
#   docker/build_without_engine.sh FOLDER [--build-arg PIP_FIND_LINKS=...] [--volume ...]
# FOLDER/root is then the image's file system, which a chroot can start:
#   chroot --userspec=10001 FOLDER/root env PATH=/opt/leadline/bin:/usr/bin leadline serve
set -euo pipefail
folder=${1:?where to build: FOLDER}
shift
cd "$(dirname "$0")/.."
store=(--root "$folder/store" --runroot "$folder/run" --storage-driver vfs)
mkdir -p "$folder"
test -e "$folder/base/etc/debian_version" || debootstrap --variant=minbase bookworm "$folder/base"
base=$(buildah "${store[@]}" from scratch)
buildah "${store[@]}" copy --quiet "$base" "$folder/base" /
buildah "${store[@]}" commit --quiet "$base" localhost/debian:bookworm
buildah "${store[@]}" build --layers --isolation chroot --network host --format docker \
    --build-arg BASE=localhost/debian:bookworm --tag localhost/leadline:cpu \
    --file docker/Dockerfile.cpu "$@" .
image=$(buildah "${store[@]}" from localhost/leadline:cpu)
rm -rf "$folder/root"
cp --archive "$(buildah "${store[@]}" mount "$image")" "$folder/root"
buildah "${store[@]}" rm "$image" "$base" >/dev/null
du --summarize --human-readable "$folder/root"
