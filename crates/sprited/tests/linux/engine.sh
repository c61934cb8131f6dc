# What container engines are built of: layers, links between namespaces, control groups with limits.
set -e
work=$(mktemp -d)
mount -t tmpfs none "$work"
mkdir "$work"/lower "$work"/upper "$work"/work "$work"/merged
echo below > "$work"/lower/file
mount -t overlay none -o "lowerdir=$work/lower,upperdir=$work/upper,workdir=$work/work" "$work"/merged
echo above > "$work"/merged/file
cat "$work"/lower/file "$work"/merged/file

ip link add bridge9 type bridge
ip addr add 192.0.2.1/24 dev bridge9
ip link set bridge9 up
ip netns add inner
ip link add outside9 type veth peer name inside9 netns inner
ip link set outside9 master bridge9 up
ip -n inner addr add 192.0.2.2/24 dev inside9
ip -n inner link set inside9 up
exec 3< <(ip netns exec inner python3 -c '
import socket
heard = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
heard.bind(("192.0.2.2", 9))
print("listening", flush=True)
print(heard.recv(100).decode(), flush=True)')
read -r line <&3
echo "$line"
echo "across the bridge" > /dev/udp/192.0.2.2/9
read -r line <&3
echo "$line"

group=/sys/fs/cgroup/engine
mkdir "$group"
echo 32M > "$group"/memory.max
echo 0 > "$group"/memory.swap.max
echo 20 > "$group"/pids.max
# A process that takes more than its group may is ended, and nobody else is.
bash -c "echo 0 > $group/cgroup.procs; exec python3 -c 'bytearray(64 << 20)'" && exit 1
grep -q 'oom_kill 1' "$group"/memory.events
rmdir "$group"
echo "a limit held"
