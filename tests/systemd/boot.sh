# Process 1 of a host, until it becomes systemd. $1: the directory of ground.sh, $2: the program under test.
# /proc is still the one of the test.
set -eu
dir=$1
heeler=$2
read -r leader _ </proc/self/stat
cd "$dir/ground/root"
mount -t proc proc proc
mount --bind proc/sys proc/sys
mount -o remount,bind,ro proc/sys
mount -t sysfs -o ro sysfs sys
mount -t cgroup2 cgroup2 sys/fs/cgroup
for place in dev run tmp; do mount -t tmpfs -o mode=755 tmpfs "$place"; done
chmod 1777 tmp
# Nodes of its own: systemd sets the rights of its console, and these must not be the machine's.
for node in console:1:3 null:1:3 zero:1:5 full:1:7 random:1:8 urandom:1:9 tty:5:0; do
  IFS=: read -r name major minor <<end
$node
end
  mknod -m 666 "dev/$name" c "$major" "$minor"
done
mkdir dev/pts dev/shm
mount -t devpts -o newinstance,ptmxmode=666,mode=620 devpts dev/pts
mount -t tmpfs -o mode=1777 tmpfs dev/shm
ln -s pts/ptmx dev/ptmx
ln -s /proc/self/fd dev/fd
# Each boot has an id of its own, also here.
cat /proc/sys/kernel/random/uuid >run/boot-id
mount --bind run/boot-id proc/sys/kernel/random/boot_id
# The program under test, wherever it was built.
: >usr/local/bin/heeler
mount --bind "$heeler" usr/local/bin/heeler
mkdir run/old
pivot_root . run/old
echo "$leader" >"/run/old$dir/leader.new"
mv "/run/old$dir/leader.new" "/run/old$dir/leader"
cd /
umount -l /run/old
rmdir /run/old
exec setpriv --bounding-set=-sys_time,-sys_module,-sys_rawio,-syslog --inh-caps=-sys_time \
  env -i container=heeler-test PATH=/usr/sbin:/usr/bin:/sbin:/bin LANG=C.UTF-8 \
  /lib/systemd/systemd --system --show-status=no --log-level=notice
