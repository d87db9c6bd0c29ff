#!/bin/sh
# A lab server's PID 1 until systemd takes over: makes the control groups writable and, on the
# first boot, gives the server what is its own (the key that may log in, its registry).
# Runs at every start of the container, so a reboot by `docker start` alone is whole.
set -u

while read -r _ path type options _; do
    case "$type" in
        cgroup | cgroup2)
            case "$options" in
                ro | ro,*)
                    mount -o remount,bind,rw "$path" || echo "lab: $path stays read-only" >&2
                    ;;
            esac
            ;;
    esac
done < /proc/self/mounts

if [ -n "${LAB_AUTHORIZED_KEY:-}" ] && [ ! -e /home/reconcile/.ssh/authorized_keys ]; then
    umask 077
    mkdir -p /home/reconcile/.ssh
    echo "$LAB_AUTHORIZED_KEY" > /home/reconcile/.ssh/authorized_keys
    chown -R reconcile:reconcile /home/reconcile/.ssh
    umask 022
fi
if [ -n "${LAB_REGISTRY:-}" ] && [ ! -e /etc/docker/daemon.json ]; then
    mkdir -p /etc/docker
    printf '{\n  "insecure-registries": ["%s"]\n}\n' "$LAB_REGISTRY" > /etc/docker/daemon.json
fi
unset LAB_AUTHORIZED_KEY LAB_REGISTRY

exec /sbin/init "$@"
