"""A file system of one file, spoken to the kernel by hand. Source: include/uapi/linux/fuse.h."""
import errno
import os
import struct

PLACE, CONTENT, FILE = "/mnt/fuse", b"from user space\n", 2
LOOKUP, FORGET, GETATTR, OPEN, READ, RELEASE, FLUSH, INIT = 1, 2, 3, 14, 15, 18, 25, 26


def attributes(node):
    mode, size = (0o100444, len(CONTENT)) if node == FILE else (0o040555, 0)
    return struct.pack("<6Q10I", node, size, 1, 0, 0, 0, 0, 0, 0, mode, 1, 0, 0, 0, 4096, 0)


def answer(operation, node, body):
    if operation == INIT:
        return struct.pack("<4I2HI", 7, 22, 65536, 0, 16, 12, 65536)
    if operation == LOOKUP:
        if body != b"file\0":
            raise OSError(errno.ENOENT, "no such file")
        return struct.pack("<4Q2I", FILE, 0, 1, 1, 0, 0) + attributes(FILE)
    if operation == GETATTR:
        return struct.pack("<Q2I", 1, 0, 0) + attributes(node)
    if operation == OPEN:
        return struct.pack("<Q2I", 0, 0, 0)
    if operation == READ:
        offset, size = struct.unpack_from("<QI", body, 8)
        return CONTENT[offset : offset + size]
    if operation in (RELEASE, FLUSH):
        return b""
    raise OSError(errno.ENOSYS, "not here")


device = os.open("/dev/fuse", os.O_RDWR)
os.set_inheritable(device, True)
os.makedirs(PLACE, exist_ok=True)
mounted, tell = os.pipe()
os.set_inheritable(tell, True)
if os.fork() == 0:
    options = f"fd={device},rootmode=40000,user_id=0,group_id=0"
    script = f"mount -i -t fuse -o {options} none {PLACE} && echo >&{tell} && cat {PLACE}/file; umount {PLACE}"
    os.execvp("sh", ["sh", "-c", script])
os.close(tell)
os.read(mounted, 1)
while True:
    try:
        request = os.read(device, 1 << 17)
    except OSError as error:
        if error.errno == errno.ENODEV:  # unmounted
            break
        raise
    _, operation, unique, node = struct.unpack_from("<2I2Q", request)
    if operation == FORGET:
        continue
    try:
        code, body = 0, answer(operation, node, request[40:])
    except OSError as error:
        code, body = -error.errno, b""
    os.write(device, struct.pack("<IiQ", 16 + len(body), code, unique) + body)
os.wait()
