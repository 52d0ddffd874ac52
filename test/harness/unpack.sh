#!/bin/sh
# usage: unpack.sh CACHE NAME=PACKAGE...
#
# Unpacks each PACKAGE of Debian's unstable suite, with all that it depends on, into CACHE/NAME. The machine's own
# packages are neither used nor changed: apt keeps its state in CACHE, and no maintainer script runs. Any user can do
# it. A program whose C library is newer than the machine's runs through the loader of its own folder.
set -eu

cache=$1
shift
mkdir -p "$cache"
cd "$cache"
exec 9> lock
flock 9

state=$(mktemp -d "$cache/apt.XXXXXX")
trap 'rm -rf "$state"' EXIT
trap 'exit 1' HUP INT TERM
mkdir -p "$state/etc/apt/apt.conf.d" "$state/etc/apt/preferences.d" "$state/etc/apt/sources.list.d" \
  "$state/var/lib/apt/lists/partial" "$state/var/cache/apt/archives/partial" "$state/var/lib/dpkg"
: > "$state/var/lib/dpkg/status"

# From where the machine gets its own packages.
archive=$(apt-get indextargets --format '$(REPO_URI)' 'Created-By: Packages' | grep -m1 '/debian/$') || {
  echo "this machine gets no packages from Debian" >&2
  exit 1
}
echo "deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] $archive sid main" > "$state/etc/apt/sources.list"
cat > "$state/apt.conf" << END
Dir "$state";
Dir::State::status "$state/var/lib/dpkg/status";
APT::Install-Recommends "false";
APT::Sandbox::User "";
Acquire::Languages "none";
Acquire::Check-Valid-Until "false";
Acquire::IndexTargets::deb::Contents-deb::DefaultEnabled "false";
END
export APT_CONFIG="$state/apt.conf"
apt-get -qq update

# What only maintainer scripts need, or every machine has.
not_needed='^(adduser|base-.*|bash|coreutils|dash|debconf|dpkg|grep|init-system-helpers|libperl.*|login.*|lsb-base'
not_needed="$not_needed"'|mount|passwd|perl.*|procps|psmisc|sed|sensible-utils|systemd.*|sysuser-helper|sysvinit.*|tar'
not_needed="$not_needed"'|ucf|util-linux)$'

for pair in "$@"; do
  name=${pair%%=*}
  package=${pair#*=}
  [ -e "$name" ] && continue
  target="$state/$name"
  mkdir -p "$state/$name.packages"

  cd "$state/$name.packages"
  case $package in
    # Architecture independent: it runs with what the machine has.
    lib*-java) echo "$package" ;;
    *) apt-get install --simulate "$package" | awk '/^Inst/ { print $2 }' | grep -vE "$not_needed" ;;
  esac | xargs apt-get -qq download
  # The suite has merged /usr: the links come first, so that every package can write through them.
  for directory in bin sbin lib lib64; do
    mkdir -p "$target/usr/$directory"
    ln -s "usr/$directory" "$target/$directory"
  done
  for archive in *.deb; do
    dpkg-deb --fsys-tarfile "$archive" | tar --extract --directory "$target" --keep-directory-symlink --no-same-owner \
      --exclude=./usr/share/doc --exclude=./usr/share/man --exclude=./usr/share/locale
  done
  cd "$cache"
  # All or nothing.
  mv "$target" "$name"
done
