#!/bin/bash
# rootfs.sh DIR: make the root file system of a small Debian for aarch64 in DIR, which must not exist yet. Needs root.
# apt here fetches, verifies and unpacks with a state of its own: nothing foreign runs, nothing here is changed.
set -euo pipefail
SUITE=bookworm ARCH=arm64
PACKAGES=(base-files base-passwd bash coreutils grep gzip libc-bin libstdc++6 mawk openssh-server openssh-sftp-server
  procps python3 sed tar util-linux)
KEYRING=/usr/share/keyrings/debian-archive-keyring.gpg

dir=$1
mirror=$(apt-get indextargets --format '$(REPO_URI)' "Release: $SUITE" 'Created-By: Packages' | head -n 1)
[ -n "$mirror" ] || { echo "rootfs.sh: apt knows no mirror of $SUITE; run 'sudo apt-get update'" >&2; exit 1; }
apt=$(mktemp -d)
trap 'rm -rf "$apt"' EXIT
mkdir -p "$apt"/{state/lists/partial,cache/archives/partial,etc/apt.conf.d,etc/preferences.d}
: > "$apt/state/status"
echo "deb [signed-by=$KEYRING] $mirror $SUITE main" > "$apt/etc/sources.list"
private() {
  apt-get -q=2 -o Dir::State="$apt/state" -o Dir::State::status="$apt/state/status" -o Dir::Cache="$apt/cache" \
    -o Dir::Etc="$apt/etc" -o APT::Architecture="$ARCH" -o APT::Architectures="$ARCH" -o APT::Install-Recommends=false \
    -o APT::Sandbox::User=root "$@"
}
private update
private install --yes --download-only "${PACKAGES[@]}"

mkdir "$dir"
mkdir -p "$dir"/usr/{bin,sbin,lib}
for name in bin sbin lib; do ln -s "usr/$name" "$dir/$name"; done
for package in "$apt"/cache/archives/*.deb; do
  dpkg-deb --fsys-tarfile "$package" | tar -x -C "$dir" --preserve-permissions --numeric-owner --keep-directory-symlink
done

# What the packages' own scripts would have done.
for name in passwd group; do cp "$dir/usr/share/base-passwd/$name.master" "$dir/etc/$name"; done
echo 'sshd:x:101:65534::/run/sshd:/usr/sbin/nologin' >> "$dir/etc/passwd"
echo 'pi:x:1000:1000::/home/pi:/bin/bash' >> "$dir/etc/passwd"
echo 'pi:x:1000:' >> "$dir/etc/group"
ln -s bash "$dir/bin/sh"
ln -s mawk "$dir/usr/bin/awk"
install -d -o 1000 -g 1000 "$dir/home/pi"
