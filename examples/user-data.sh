#!/bin/bash
# EC2 user-data: writes the configuration, applies it once, and has the timer follow changes.
# Expects /usr/bin/cachenat and its units on the image.
set -euo pipefail

install -d /etc/cachenat
cat > /etc/cachenat/config.yaml <<'CONFIG'
clients: [198.51.100.27/32]
sources:
  - replication_group: my-cluster
CONFIG

# Credentials, DNS or the API may not answer in an instance's first seconds. Exit code 3: the timer goes on with the rest.
cachenat apply --wait 120s || [ $? -eq 3 ]
systemctl enable --now cachenat.timer
