if [ -d /run/systemd/system ]; then
    systemctl daemon-reload
    # An upgrade: a watch that runs becomes the new program. The rules stay in force meanwhile.
    [ "$1" = 0 ] || systemctl try-restart cachenat-watch.service
fi
exit 0
