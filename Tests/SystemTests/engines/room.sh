#!/bin/bash
# Usage: room.sh FOLDER ENGINE RUNTIME CGROUP ROOTFS
# Process 1 of a room: namespaces of its own in which one engine runs containers through RUNTIME, with all its files in
# FOLDER. For each line that it reads it runs FOLDER/command and leaves `out`, `err` and, last, `code` beside it; when there
# is nothing more to read it ends, and everything in the room with it.
set -u
W=$1 engine=$2 runtime=$3
export W HOME=$W TMPDIR=$W LC_ALL=C TZ=UTC CGROUP=$4 ROOTFS=$5
export PATH=$W/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
# What the sessions give to commands.
export P="--cgroup-parent /$CGROUP" R="--runc-binary $runtime --runc-root $W/runtime" C=/$CGROUP BOX=localhost/box:latest
export CONTAINERS_CONF=$W/containers.conf CONTAINERS_STORAGE_CONF=$W/storage.conf
export CONTAINERD_ADDRESS=$W/containerd.sock DOCKER_HOST=unix://$W/docker.sock
cd "$W" || exit 1
mkdir -p bin

# Locks, sockets and network namespaces of engines are the room's own.
mount -t tmpfs tmpfs /run && mount -t tmpfs tmpfs /dev/shm || exit 1
# As in a machine that boots: loopback, a sysfs that shows this network, and the cgroups where they were.
ip link set lo up
mkdir -p cgroups
mount --rbind /sys/fs/cgroup cgroups && mount -t sysfs sysfs /sys && mount --rbind cgroups /sys/fs/cgroup || exit 1
umount -R -l cgroups

# The defaults ask for more than a root without CAP_SYS_RESOURCE may give.
cat >containers.conf <<X
[containers]
default_ulimits = ["nofile=1024:20000", "nproc=4096:4096"]
[engine]
cgroup_manager = "cgroupfs"
events_logger = "file"
lock_type = "file"
runtime = "under-test"
image_copy_tmp_dir = "$W"
[engine.runtimes]
under-test = ["$runtime"]
[network]
network_backend = "netavark"
network_config_dir = "$W/networks"
X
# Overlay where it works on FOLDER's file system; vfs copies the image for each container.
mkdir -p probe/{l,u,w,m}
driver=vfs
mount -t overlay overlay -o lowerdir=probe/l,upperdir=probe/u,workdir=probe/w probe/m 2>/dev/null && umount probe/m && driver=overlay
cat >storage.conf <<X
[storage]
driver = "$driver"
graphroot = "$W/graph"
runroot = "$W/run"
X
# All places as flags: podman's cleanup, which conmon calls, is given them again, and not what containers.conf says.
cat >bin/podman <<X
#!/bin/sh
exec /usr/bin/podman --root $W/graph --runroot $W/run --tmpdir $W/libpod --volumepath $W/volumes "\$@"
X
cat >bin/onterminal <<'X'
#!/bin/sh
# Runs a command on a terminal and prints what that shows, without what the end of its input adds.
script -qec "$1" /dev/null </dev/null >"$W/terminal"
code=$?
tr -d '\r\0\b\4' <"$W/terminal" | sed -e 's/\^[@D]//g' -e '/resize pty/d'
exit $code
X
chmod +x bin/*
cat >containerd.toml <<X
version = 2
root = "$W/containerd"
state = "$W/containerd-run"
disabled_plugins = ["io.containerd.grpc.v1.cri"]
[grpc]
address = "$W/containerd.sock"
[plugins."io.containerd.internal.v1.opt"]
path = "$W/opt"
X

case $engine in
    ctr) containerd --config containerd.toml >daemon.log 2>&1 & probe=(ctr version) ;;
    dockerd)
        storage=vfs
        [ $driver = vfs ] || storage=overlay2
        dockerd --data-root "$W/data-root" --exec-root "$W/run" --host "$DOCKER_HOST" --pidfile "$W/pid" \
            --storage-driver $storage --bip 10.97.0.1/16 --cgroup-parent "/$CGROUP" \
            --add-runtime "under-test=$runtime" --default-runtime under-test >daemon.log 2>&1 &
        probe=(docker version)
        ;;
    *) probe=(true) ;;
esac
for _ in {1..300}; do
    "${probe[@]}" >/dev/null 2>&1 && break
    sleep 0.1
done
echo ready >started

while read -r _; do
    timeout --kill-after=5 60 /bin/sh command >out 2>err </dev/null
    echo $? >code.new
    mv code.new code
done
