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

# The kernel's boot id is the machine's and outlives a server's reboot; give each boot its own, as
# systemd-nspawn does, so that the journal and anyone who asks can tell boots apart.
cat /proc/sys/kernel/random/uuid > /run/lab-boot-id
chmod 0444 /run/lab-boot-id
mount --bind /run/lab-boot-id /proc/sys/kernel/random/boot_id \
    || echo "lab: the boot id stays the machine's" >&2

# Nobody serves names on the gateway, and says so at once; the servers know each other from
# /etc/hosts. The engine's own resolver would let unknown names time out (20 s a look-up), and an
# engine in the server would give its containers public resolvers in its place.
LAB_REGISTRY=${LAB_REGISTRY:-}
if [ -n "$LAB_REGISTRY" ]; then
    echo "nameserver ${LAB_REGISTRY%:*}" > /etc/resolv.conf
fi

# systemd would do this itself, but takes an empty id for a first boot and then enables every unit
# that is installed (a preset file against that would also keep packages from enabling theirs).
if [ ! -s /etc/machine-id ]; then
    tr -d - < /proc/sys/kernel/random/uuid > /etc/machine-id
fi

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
