#!/bin/sh
# Builds the roots of the utility images from Debian's packages: each holds its programs, the
# libraries that they load, a shell, and nothing else. Run in a throw-away container;
# leaves /out/NAME/root.tar for each.
set -eu
export DEBIAN_FRONTEND=noninteractive

printf '#!/bin/sh\nexit 101\n' > /usr/sbin/policy-rc.d
chmod +x /usr/sbin/policy-rc.d
apt-get install -y --no-install-recommends haproxy pgbouncer postgresql-client-15 curl

shell='dash sh cat ls cp mv rm mkdir chmod ln sleep env id echo printf date head tail grep sed wc true false timeout'

# with_libraries ROOT PROGRAM…: copies programs to where they live, with what they link to.
with_libraries() {
    root=$1
    shift
    for program in "$@"; do
        file=$(which "$program" || echo "$program")
        mkdir -p "$root$(dirname "$file")"
        cp -L "$file" "$root$file"
        ldd "$file" | sed -n 's/^[^/]*\(\/[^ ]*\) (0x.*$/\1/p' | while read -r library; do
            mkdir -p "$root$(dirname "$library")"
            [ -e "$root$library" ] || cp -L "$library" "$root$library"
        done
    done
}

# make ROOT: the frame that every image shares.
make() {
    root=$1
    mkdir -p "$root/usr/bin" "$root/usr/sbin" "$root/usr/lib" "$root/usr/lib64" "$root/etc" \
        "$root/tmp" "$root/var" "$root/run" "$root/dev" "$root/proc" "$root/sys"
    ln -s usr/bin "$root/bin"
    ln -s usr/sbin "$root/sbin"
    ln -s usr/lib "$root/lib"
    ln -s usr/lib64 "$root/lib64"
    chmod 1777 "$root/tmp"
    chmod 0755 "$root" "$root/run"
    cat > "$root/etc/passwd" <<'PASSWD'
root:x:0:0:root:/root:/bin/sh
haproxy:x:99:99:haproxy:/var/lib/haproxy:/bin/sh
pgbouncer:x:10001:10001:pgbouncer:/var/lib/pgbouncer:/bin/sh
PASSWD
    cat > "$root/etc/group" <<'GROUP'
root:x:0:
haproxy:x:99:
pgbouncer:x:10001:
GROUP
    echo 'hosts: files dns' > "$root/etc/nsswitch.conf"
    # shellcheck disable=SC2086
    with_libraries "$root" $shell
}

# own UID ROOT DIRECTORY…
own() {
    uid=$1
    root=$2
    shift 2
    for directory in "$@"; do
        mkdir -p "$root$directory"
        chown "$uid:$uid" "$root$directory"
    done
}

make /build/haproxy
with_libraries /build/haproxy haproxy
own 99 /build/haproxy /var/lib/haproxy /run/haproxy /usr/local/etc/haproxy

make /build/pgbouncer
with_libraries /build/pgbouncer pgbouncer
own 10001 /build/pgbouncer /var/lib/pgbouncer /run/pgbouncer /etc/pgbouncer

make /build/client
with_libraries /build/client bash curl getent seq tr cut sort uniq tee
with_libraries /build/client /usr/lib/postgresql/15/bin/psql /usr/lib/postgresql/15/bin/pg_isready
mv /build/client/usr/lib/postgresql/15/bin/* /build/client/usr/bin/

for image in haproxy pgbouncer client; do
    mkdir -p "/out/$image"
    tar -C "/build/$image" --numeric-owner -cf "/out/$image/root.tar" .
done
