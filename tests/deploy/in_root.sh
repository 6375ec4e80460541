#!/bin/sh
# in_root.sh LOWER UPPER WORK ROOT MODE COMMAND… runs a command as process 1 of a root made of layers.
#
# To be run in new mount and process namespaces: all mounts end with the command. MODE is `build` (writable),
# `run` (read-only, as a container with a read-only root), or `boot` (writable, with what systemd mounts on).
set -eu
lower=$1 upper=$2 work=$3 root=$4 mode=$5
shift 5
mount --make-rprivate /
mount -t overlay overlay -o "lowerdir=$lower,upperdir=$upper,workdir=$work" "$root"
mount -t proc proc "$root/proc"
mount -t tmpfs -o mode=755 tmpfs "$root/dev"
for device in null:3 zero:5 full:7 random:8 urandom:9; do
    mknod -m 666 "$root/dev/${device%:*}" c 1 "${device#*:}"
done
ln -s /proc/self/fd "$root/dev/fd"
ln -s /proc/self/fd/0 "$root/dev/stdin"
ln -s /proc/self/fd/1 "$root/dev/stdout"
ln -s /proc/self/fd/2 "$root/dev/stderr"
mkdir "$root/dev/shm" "$root/dev/pts"
if [ "$mode" = boot ]; then
    mount -t devpts -o newinstance,ptmxmode=666 devpts "$root/dev/pts"
    ln -s pts/ptmx "$root/dev/ptmx"
    mount -t sysfs -o ro sysfs "$root/sys"
    mount -t cgroup2 cgroup2 "$root/sys/fs/cgroup"
    mount -t tmpfs -o mode=755 tmpfs "$root/run"
    mount -t tmpfs tmpfs "$root/tmp"
fi
if [ "$mode" = run ]; then
    mount -o remount,ro "$root"
fi
cd "$root"
# Not chroot: systemd makes mount namespaces of its own, and those begin at the root that pivot_root sets. It expects
# that what is mounted in one of them (credentials) shows in the others.
pivot_root . mnt
exec chroot . /usr/bin/env -i /bin/sh -c 'umount -l /mnt && mount --make-rshared / && exec "$@"' sh "$@"
