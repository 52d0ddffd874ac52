#!/bin/sh
# usage: install.sh LOCK PACKAGE..., as root.
#
# Installs packages of the distribution. No service is started, and nothing that is installed is removed.
set -eu

lock=$1
shift
mkdir -p "$(dirname "$lock")"
exec 9> "$lock"
flock 9

# The policy of a machine that has none is to start every service that is installed.
policy=/usr/sbin/policy-rc.d
if [ ! -e "$policy" ]; then
  trap 'rm -f "$policy"' EXIT
  trap 'exit 1' HUP INT TERM
  printf '#!/bin/sh\nexit 101\n' > "$policy"
  chmod +x "$policy"
fi

export DEBIAN_FRONTEND=noninteractive
# One of several sources may fail that has nothing to do with these packages.
apt-get -qq update || true
apt-get -qq --option DPkg::Lock::Timeout=120 install --yes --no-install-recommends --no-remove "$@"
