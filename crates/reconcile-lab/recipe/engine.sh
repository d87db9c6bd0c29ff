#!/bin/sh
# Adds the Docker engine to a lab server's image, from the mirror.
set -eu
export DEBIAN_FRONTEND=noninteractive
apt-get install -y --no-install-recommends docker.io
# Made at first boot, as the server's own.
rm -f /etc/docker/key.json /etc/docker/daemon.json
: > /etc/machine-id
