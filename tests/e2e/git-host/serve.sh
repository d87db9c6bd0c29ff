#!/bin/sh
# Serves /srv/git until it is ended. The authority and its certificate are made anew each time;
# TOKEN_FILE holds the password of the user `git`.
set -eu
address=$(hostname -I | cut -d' ' -f1)
mkdir -p /tls /run/sshd
cd /tls
openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 30 -subj '/CN=test authority' \
    -keyout ca.key -out ca.pem
openssl req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj "/CN=$address" \
    -keyout server.key -out server.csr
printf 'subjectAltName=IP:%s\n' "$address" > ext
openssl x509 -req -in server.csr -CA ca.pem -CAkey ca.key -CAcreateserial -days 30 -extfile ext \
    -out server.pem
printf 'git:%s\n' "$(openssl passwd -apr1 -stdin < "$TOKEN_FILE")" > users
ssh-keygen -A
/usr/sbin/sshd
fcgiwrap -s unix:/run/fcgiwrap.socket &
while [ ! -S /run/fcgiwrap.socket ]; do sleep 0.1; done
chmod 666 /run/fcgiwrap.socket
touch /tls/ready
exec nginx -g 'daemon off;'
