#!/bin/bash
# Runs a command in the mount and network namespaces that unshare made: loopback up, and a sysfs that shows this network
# namespace instead of the host's, with the cgroup hierarchies where they were.
set -euo pipefail
ip link set lo up
cgroups=$(mktemp -d)
mount --rbind /sys/fs/cgroup "$cgroups"
mount -t sysfs sysfs /sys
mount --rbind "$cgroups" /sys/fs/cgroup
umount -R -l "$cgroups"
rmdir "$cgroups"
exec "$@"
