#!/bin/sh
# Turns a bare Debian root into a lab server: run once, inside the container that becomes the
# image. The network is off; packages come from the mirror at /srv/mirror.
set -eu

useradd --create-home --shell /bin/bash --uid 1000 reconcile
echo 'reconcile ALL=(ALL) NOPASSWD: ALL' > /etc/sudoers.d/reconcile
chmod 0440 /etc/sudoers.d/reconcile

# Only the mirror; apt knows its content from the start.
rm -rf /etc/apt/sources.list /etc/apt/sources.list.d/*
echo 'deb [trusted=yes] file:/srv/mirror ./' > /etc/apt/sources.list
echo 'Acquire::Languages "none";' > /etc/apt/apt.conf.d/90lab
apt-get update

# Host keys belong to one server: made at its first boot.
rm -f /etc/ssh/ssh_host_*
cat > /etc/systemd/system/lab-host-keys.service <<'UNIT'
[Unit]
Description=SSH host keys of this server
ConditionPathExists=!/etc/ssh/ssh_host_ed25519_key
Before=ssh.service

[Service]
Type=oneshot
ExecStart=/usr/bin/ssh-keygen -A

[Install]
WantedBy=multi-user.target
UNIT
systemctl enable lab-host-keys.service ssh.service

# A server finds its own at its first boot (see lab-init, and why it does that before systemd).
: > /etc/machine-id
rm -f /var/lib/dbus/machine-id

# As Debian's installer leaves it; without it PostgreSQL would start out with SQL_ASCII.
echo 'LANG=C.UTF-8' > /etc/default/locale

# Nothing here has a terminal, and these have no work in a container.
systemctl mask getty.target console-getty.service systemd-firstboot.service \
    apt-daily.timer apt-daily-upgrade.timer e2scrub_all.timer dpkg-db-backup.timer
systemctl set-default multi-user.target

rm -rf /var/cache/apt/archives/*.deb /var/log/*.log /var/log/apt/*
