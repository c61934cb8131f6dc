"""An interface whose packets a program gets. Source: Linux Documentation/networking/tuntap.rst."""
import fcntl
import os
import socket
import struct
import subprocess

TUNSETIFF, IFF_TUN, IFF_NO_PI = 0x400454CA, 1, 0x1000
device = os.open("/dev/net/tun", os.O_RDWR)
fcntl.ioctl(device, TUNSETIFF, struct.pack("16sH22x", b"tun9", IFF_TUN | IFF_NO_PI))
for command in ("addr add 192.0.2.1/24 dev tun9", "link set tun9 up"):
    subprocess.check_call(["ip"] + command.split())
with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
    sender.sendto(b"through the tunnel", ("192.0.2.2", 9))
while True:
    packet = os.read(device, 2000)
    if packet[0] >> 4 == 4 and packet.endswith(b"through the tunnel"):
        break
print("a packet came")
