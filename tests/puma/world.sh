# Process 1 of a test's own machine (namespaces: mount, pid, cgroup, ipc, net): makes the user deploy (uid
# 1500), who is nowhere else, with a home on tmpfs and /run/user/1500; then runs the test. $1: a directory
# for files; the rest: the command.
set -eu
dir=$1
shift
mount --make-rprivate /
ip link set lo up
for file in passwd group; do
  grep -v '^deploy:' /etc/$file | awk -F: '$3 != 1500 && $3 != 1501' >"$dir/$file"
done
printf '%s\n' deploy:x:1500:1500::/home/deploy:/bin/bash other:x:1501:1501::/:/bin/sh >>"$dir/passwd"
printf '%s\n' deploy:x:1500: web:x:1502:deploy >>"$dir/group"
for file in passwd group; do mount --bind "$dir/$file" /etc/$file; done
mount -t tmpfs -o mode=755 tmpfs /home
mount -t tmpfs -o mode=755 tmpfs /run
# That systemd is process 1 is known by this directory (sd_booted(3)); logind makes the other one.
mkdir -p /home/deploy /run/systemd/system /run/user
mkdir -m 700 /run/user/1500
chown 1500:1500 /home/deploy /run/user/1500
# Not exec: process 1 is to go on waiting for orphans.
code=0
"$@" || code=$?
exit $code
