if [ -d /run/systemd/system ]; then
    systemctl daemon-reload
    # An upgrade: a watch that runs becomes the new program. The rules stay in force meanwhile.
    [ "$1" = 0 ] || systemctl try-restart cachenat-watch.service
fi
# cargo-generate-rpm lets a package own files only.
if [ "$1" = 0 ]; then
    rmdir --ignore-fail-on-non-empty /usr/share/doc/cachenat /usr/share/licenses/cachenat /etc/cachenat
fi
exit 0
