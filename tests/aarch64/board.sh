#!/bin/bash
# board.sh ROOTFS STATE PORT: a board that is gone when it ends. It is the first process of namespaces of its own:
#   unshare --mount --pid --uts --ipc --fork --kill-child=KILL board.sh ROOTFS STATE PORT
# ROOTFS stays as it is, below an overlay in memory. STATE holds sys/, cpuinfo, host, host.pub and authorized_keys.
# The user pi logs in on 127.0.0.1:PORT; sshd and all that it starts are emulated (binfmt_misc).
set -euo pipefail
[ $$ = 1 ] || { echo "board.sh: start it with unshare, as its first lines say: it mounts" >&2; exit 2; }
rootfs=$1 state=$2 port=$3

hostname emulated-pi
mkdir -p "$state/disk"
mount -t tmpfs -o size=512m,mode=755 tmpfs "$state/disk"
mkdir "$state"/disk/{changed,work,root}
R=$state/disk/root
mount -t overlay -o "lowerdir=$rootfs,upperdir=$state/disk/changed,workdir=$state/disk/work" overlay "$R"

mount -t proc proc "$R/proc"
mount --bind "$state/cpuinfo" "$R/proc/cpuinfo"
mount -t tmpfs -o mode=755 tmpfs "$R/sys"
cp -R "$state/sys/." "$R/sys/"
mount -t tmpfs -o mode=755 tmpfs "$R/run"
mount -t tmpfs -o mode=755 tmpfs "$R/dev"
for name in null zero full random urandom tty; do
  touch "$R/dev/$name"
  mount --bind "/dev/$name" "$R/dev/$name"
done
mkdir "$R/run/sshd" "$R/dev/pts" "$R/dev/shm"
mount -t devpts -o newinstance,ptmxmode=0666,mode=620,gid=5 devpts "$R/dev/pts"
ln -s pts/ptmx "$R/dev/ptmx"
mount -t tmpfs -o mode=1777 tmpfs "$R/dev/shm"

install -m 600 "$state/host" "$R/etc/ssh/ssh_host_ed25519_key"
install -m 644 "$state/host.pub" "$R/etc/ssh/ssh_host_ed25519_key.pub"
install -d -m 700 -o 1000 -g 1000 "$R/home/pi/.ssh"
install -m 600 -o 1000 -g 1000 "$state/authorized_keys" "$R/home/pi/.ssh/authorized_keys"
cat > "$R/etc/ssh/sshd_config" << END
Port $port
ListenAddress 127.0.0.1
HostKey /etc/ssh/ssh_host_ed25519_key
UsePAM no
PasswordAuthentication no
Subsystem sftp /usr/lib/openssh/sftp-server
END
exec env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin chroot "$R" /usr/sbin/sshd -D -e
