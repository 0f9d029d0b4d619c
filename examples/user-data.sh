#!/bin/bash
# EC2 user-data for Amazon Linux 2023, Debian and Ubuntu: installs cachenat, configures it, applies it once, and has a
# timer follow changes and the next boot restore the rules. Running it again does no harm.
set -euo pipefail

# Where the package is: what curl can fetch from, or s3://BUCKET/PREFIX, which takes the AWS CLI and a role that may.
packages=https://github.com/cachenat/cachenat/releases/download/v0.1.0
version=0.1.0
# The package's line in SHA256SUMS, which is beside it; its first word. There is a line for each kind and architecture.
sha256=

config() {
    cat <<'CONFIG'
clients: [198.51.100.27/32]
sources:
  - replication_group: my-cluster
CONFIG
}

# Nothing below here needs to be edited.
fetch() {
    case $packages in
    s3://*) aws s3 cp --only-show-errors "$packages/$1" "$download/" ;;
    *) curl --proto '=https' --fail --silent --show-error --location --retry 5 --retry-all-errors --output "$download/$1" "$packages/$1" ;;
    esac
    [ -n "$sha256" ] || { echo "set sha256 to the first word of the line of $1 in $packages/SHA256SUMS" >&2 && exit 1; }
    echo "$sha256  $download/$1" | sha256sum --check --quiet
}
apt() {
    # The first boot's own updates hold dpkg's lock for a while.
    DEBIAN_FRONTEND=noninteractive apt-get --quiet --yes --option DPkg::Lock::Timeout=300 "$@"
}
download=$(mktemp -d)
trap 'rm -rf "$download"' EXIT
chmod 755 "$download" # apt reads it as a user of its own
# shellcheck disable=SC1091 # it is the instance's
case $(. /etc/os-release && echo "$ID ${ID_LIKE:-}") in
*debian*)
    package=cachenat_$version-1_$(dpkg --print-architecture).deb
    apt update
    apt install ca-certificates curl
    fetch "$package"
    apt --option Dpkg::Options::=--force-confold install "$download/$package"
    ;;
*)
    package=cachenat-$version-1.$(uname -m).rpm
    fetch "$package"
    dnf install --assumeyes --quiet "$download/$package"
    ;;
esac

install -d /etc/cachenat
config >/etc/cachenat/config.yaml
# First of all, so that an instance whose role or route comes late recovers by itself.
systemctl enable cachenat-restore.service
systemctl enable --now cachenat.timer
# Credentials, DNS or the API may not answer in an instance's first seconds. Exit code 3: the timer goes on with the rest.
cachenat apply --wait 120s || [ $? -eq 3 ]
