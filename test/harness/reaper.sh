#!/bin/sh
# usage: reaper.sh FOLDER, with a pipe from the test process as standard input.
#
# Waits for the end of the test process, however it ends (the kernel closes the pipe even after SIGKILL), then kills
# the process groups and containers that it left, and removes its folder.

trap '' HUP INT TERM
cat > /dev/null

# A process writes its group into the folder before it becomes a server, and gives up when it cannot: once the folder
# has another name, no process can be added any more.
gone="$1.gone"
mv "$1" "$gone" || exit 0

for file in "$gone"/*/*.group; do
  [ -e "$file" ] && kill -s KILL -- "-$(basename "$file" .group)"
done
for file in "$gone"/*/*.container; do
  [ -e "$file" ] && docker rm --force "$(basename "$file" .container)"
done

# The dying still write for a moment.
for _ in 1 2 3 4 5 6 7 8 9 10; do
  rm -rf "$gone" && exit 0
  sleep 0.2
done
