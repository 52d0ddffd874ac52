#!/bin/sh
# usage: unpack.sh CACHE NAME=PACKAGE[/SUITE]...
#
# Unpacks each PACKAGE of Debian's unstable suite, or of SUITE, with all that it depends on, into CACHE/NAME. The
# machine's own packages are neither used nor changed: apt keeps its state in CACHE, and no maintainer script runs. Any
# user can do it. A program whose C library is newer than the machine's runs through the loader of its own folder.
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
mkdir -p "$state/lists/partial" "$state/archives/partial" "$state/parts"
: > "$state/status"

# From where the machine gets its own packages; its settings for that (proxies, passwords) hold here too.
archive=$(apt-get indextargets --format '$(REPO_URI)' 'Created-By: Packages' | grep -m1 '/debian/$') || {
  echo "this machine gets no packages from Debian" >&2
  exit 1
}
for suite in sid experimental; do
  echo "deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] $archive $suite main"
done > "$state/sources.list"
cat > "$state/apt.conf" << END
Dir::State "$state";
Dir::State::status "$state/status";
Dir::Cache "$state";
Dir::Etc::SourceList "$state/sources.list";
Dir::Etc::SourceParts "$state/parts";
Dir::Etc::Preferences "$state/preferences";
Dir::Etc::PreferencesParts "$state/parts";
APT::Install-Recommends "false";
APT::Sandbox::User "";
APT::Update::Error-Mode "any";
Acquire::GzipIndexes "false";
Acquire::Languages "none";
Acquire::Check-Valid-Until "false";
Acquire::Retries "3";
Acquire::http::Timeout "30";
Acquire::https::Timeout "30";
Acquire::IndexTargets::deb::Contents-deb::DefaultEnabled "false";
END
settings="--config-file=$state/apt.conf"
apt-get "$settings" -qq update

# What only maintainer scripts need, or every machine has.
not_needed='^(adduser|base-.*|bash|coreutils|dash|debconf|dpkg|grep|init-system-helpers|libperl.*|login.*|lsb-base'
not_needed="$not_needed"'|mount|passwd|perl.*|procps|psmisc|sed|sensible-utils|systemd.*|sysuser-helper|sysvinit.*|tar'
not_needed="$not_needed"'|ucf|util-linux)='

unpack() {
  name=$1
  package=$2
  target="$state/$name"
  mkdir -p "$state/$name.packages"

  cd "$state/$name.packages"
  case $package in
    # Architecture independent: it runs with what the machine has.
    lib*-java) echo "$package" ;;
    *)
      apt-get "$settings" install --simulate "$package" | awk '/^Inst/ { print $2 "=" substr($3, 2) }' |
        grep -vE "$not_needed"
      ;;
  esac | xargs apt-get "$settings" -qq download
  # The suite has merged /usr: the links come first, so that every package can write through them.
  for directory in bin sbin lib lib64; do
    mkdir -p "$target/usr/$directory"
    ln -s "usr/$directory" "$target/$directory"
  done
  for deb in *.deb; do
    dpkg-deb --fsys-tarfile "$deb" | tar --extract --directory "$target" --keep-directory-symlink --no-same-owner \
      --exclude=./usr/share/doc --exclude=./usr/share/man --exclude=./usr/share/locale
  done
  cd "$cache"
  # All or nothing.
  mv "$target" "$name"
}

# One that is unavailable takes no other with it. (In a condition, the shell would not stop at the first error.)
failed=0
for pair in "$@"; do
  [ -e "${pair%%=*}" ] && continue
  set +e
  (set -e && unpack "${pair%%=*}" "${pair#*=}")
  code=$?
  set -e
  [ "$code" -eq 0 ] || failed=1
done
exit "$failed"
