# Enables ufw in a directory of its own: PROGRAM DIRECTORY FORWARD_POLICY IPTABLES. PROGRAM is the root of the unpacked
# package, and IPTABLES the program that is iptables meanwhile; runs in a mount namespace of its own.
set -eu
program=$1 directory=$2 forward_policy=$3 iptables=$4

# The files in the places where the package's postinst copies them, all below DIRECTORY.
mkdir -p "$directory/etc" "$directory/lib" "$directory/usr/lib" "$directory/usr/share"
cp -R "$program/etc/default" "$program/etc/ufw" "$directory/etc"
cp -R "$program/usr/share/ufw" "$directory/usr/share"
# Releases differ in whether /lib is /usr/lib.
for lib in lib usr/lib; do
    [ ! -d "$program/$lib/ufw" ] || cp -R "$program/$lib/ufw" "$directory/lib"
done
cp -R "$directory/lib/ufw" "$directory/usr/lib"
ufw=$directory/usr/share/ufw
cp "$ufw"/iptables/*.rules "$ufw/ufw.conf" "$ufw/before.init" "$ufw/after.init" "$directory/etc/ufw"
sed -i -e "s/^DEFAULT_FORWARD_POLICY=.*/DEFAULT_FORWARD_POLICY=\"$forward_policy\"/" -e '/^IPT_SYSCTL=/d' \
    "$directory/etc/default/ufw"

# ufw calls /usr/sbin/iptables and its sisters, which are links to one program for all of them, as IPTABLES is.
mount --bind "$(readlink -f "$iptables")" "$(readlink -f /usr/sbin/iptables)"
ufw() {
    PYTHONPATH=$program/usr/lib/python3/dist-packages python3 "$program/usr/sbin/ufw" \
        --rootdir="$directory" --datadir="$directory" "$@"
}
ufw allow 22/tcp
ufw --force enable
