# The ground that a host stands on: a copy of this machine's own files, written to in memory only, and a
# control group. It goes when stdin ends, which it does however the test ends, and the host goes with it.
# $1: a directory of the test's. $2: the program under test. Each line of stdin is an order.
set -eu
trap '' HUP INT TERM
dir=$1
heeler=$2
ground=$dir/ground
mkdir "$ground"
mount -t tmpfs -o mode=755 tmpfs "$ground"
mkdir "$ground/upper" "$ground/work" "$ground/root" "$ground/cgroup"
mount -t overlay -o "lowerdir=/,upperdir=$ground/upper,workdir=$ground/work" overlay "$ground/root"
mount -t cgroup2 cgroup2 "$ground/cgroup"
group=$ground/cgroup/${dir##*/}
mkdir "$group"

# $1: how long it is to think that it has been up, in seconds. What runs in it ends with its process 1, which
# ends with unshare, which ends with this script.
boot() {
  mkdir "$group/host"
  read -r up _ </proc/uptime
  ahead=$(($1 - ${up%.*}))
  sh -c 'echo $$ >"$1/cgroup.procs"; shift; exec "$@"' sh "$group/host" setpriv --pdeathsig KILL \
    unshare --mount --uts --ipc --net --pid --cgroup --time --monotonic "$ahead" --boottime "$ahead" \
    --fork --kill-child=KILL -- sh "$dir/boot.sh" "$dir" "$heeler" </dev/null >>"$dir/console" 2>&1 &
}

# A process is in its group until somebody has waited for it.
clear() {
  for _ in $(seq 500); do
    [ -d "$group/host" ] || return 0
    echo 1 >"$group/host/cgroup.kill"
    find "$group/host" -depth -type d -exec rmdir {} + 2>/dev/null || true
    sleep 0.02
  done
  echo "failed to remove $group/host" >&2
}

echo ready
while read -r order word; do
  case $order in
  boot) boot "$word" ;;
  clear)
    clear
    echo cleared
    ;;
  esac
done
clear
wait
rmdir "$group"
umount -R "$ground"
rm -f "$dir/boot.sh" "$dir/console" "$dir/leader" "$dir/leader.new"
rmdir "$ground" "$dir"
