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
output=$(mktemp)
trap 'rm -f "$output"' EXIT
trap 'exit 1' HUP INT TERM
if [ ! -e "$policy" ]; then
  trap 'rm -f "$output" "$policy"' EXIT
  printf '#!/bin/sh\nexit 101\n' > "$policy"
  chmod +x "$policy"
fi

export DEBIAN_FRONTEND=noninteractive
# A machine that has just started may be updating itself, and apt waits only for one of its locks.
apt() {
  for _ in $(seq 60); do
    code=0
    apt-get -qq --option DPkg::Lock::Timeout=120 --option Acquire::Retries=3 "$@" > "$output" 2>&1 || code=$?
    [ "$code" -ne 0 ] && grep -q 'Could not get lock\|Unable to lock' "$output" || break
    sleep 2
  done
  cat "$output"
  return "$code"
}

# One of several sources may fail that has nothing to do with these packages.
apt update || true
apt install --yes --no-install-recommends --no-remove "$@"
