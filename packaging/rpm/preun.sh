# Closes the ways into the caches: without the program nobody would keep them true, or could close them.
if [ "$1" = 0 ]; then
    systemctl --quiet disable cachenat.timer cachenat-watch.service cachenat-restore.service
    if [ -d /run/systemd/system ]; then
        systemctl stop cachenat.timer cachenat.service cachenat-watch.service cachenat-restore.service
    fi
    # 3: it says itself what is left. Where nothing was ever applied, there is nothing to say.
    cachenat --quiet remove || [ $? -eq 3 ] \
        || echo "cachenat: rules may still be in force: 'nft delete table inet cachenat' removes them" >&2
fi
exit 0
