# Closes the ways into the caches: without the program nobody would keep them true, or could close them.
if [ "$1" = 0 ]; then
    systemctl --quiet disable cachenat.timer cachenat-watch.service cachenat-restore.service
    if [ -d /run/systemd/system ]; then
        systemctl stop cachenat.timer cachenat.service cachenat-watch.service cachenat-restore.service
    fi
    if [ -e /var/lib/cachenat/ruleset.json ]; then
        cachenat remove || echo "cachenat: the rules are still in force: 'nft delete table inet cachenat' ends that" >&2
    fi
fi
exit 0
