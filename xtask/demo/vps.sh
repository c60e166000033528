# shellcheck shell=sh
# Makes a namespace of an ordinary user a VPS on which nothing was ever deployed, and holds it.
# usage: vps.sh STAND-IN (the directory of systemd's stand-in)
set -e
for dir in /opt /var/lib /etc/systemd/system; do
    mount -t tmpfs -o mode=755 tmpfs "$dir"
done
mkdir /var/lib/stand-in
mount --bind "$1" /var/lib/stand-in
# Last: what is bound may lie below it.
mount -t tmpfs -o mode=755 tmpfs /run
mkdir /opt/sample
echo GREETING=hello >/opt/sample/.env
chmod 0640 /opt/sample/.env
echo ready
exec sleep infinity
