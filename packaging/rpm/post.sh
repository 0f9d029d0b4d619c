# Makes the service's user and its files. Enables nothing, starts nothing.
systemd-sysusers cachenat.conf
systemd-tmpfiles --create cachenat.conf
if [ -d /run/systemd/system ]; then
    systemctl daemon-reload
fi
