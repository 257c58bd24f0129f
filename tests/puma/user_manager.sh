# Starts systemd's manager of the user deploy, in the control group it has on a real server.
set -eu
slice=/sys/fs/cgroup/user.slice/user-1500.slice/user@1500.service
umount -Rl /sys/fs/cgroup 2>/dev/null || true
mount -t cgroup2 cgroup2 /sys/fs/cgroup
mkdir -p "$slice" /run/user/1500
chmod 700 /run/user/1500
chown 1500:1500 /run/user/1500 "$slice" "$slice/cgroup.procs" "$slice/cgroup.subtree_control" \
  "$slice/cgroup.threads"
sh -c 'echo $$ >"$1/cgroup.procs"; cd /; exec setpriv --reuid=1500 --regid=1500 --init-groups --reset-env \
  env XDG_RUNTIME_DIR=/run/user/1500 /lib/systemd/systemd --user' sh "$slice" </dev/null >/dev/null 2>&1 &
for _ in $(seq 500); do
  state=$(setpriv --reuid=1500 --regid=1500 --init-groups --reset-env \
    env XDG_RUNTIME_DIR=/run/user/1500 systemctl --user is-system-running 2>/dev/null || true)
  case $state in running | degraded) exit 0 ;; esac
  sleep 0.02
done
echo "the user manager is '$state'" >&2
exit 1
