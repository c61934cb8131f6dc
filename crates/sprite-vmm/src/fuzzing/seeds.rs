//! Inputs to begin with: what well-behaved guests and clients do, each as short as can be.

/// A seed and the entry that it is for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seed {
    /// A name of [`super::ENTRIES`].
    pub entry: &'static str,
    /// A name among those of the entry.
    pub name: &'static str,
    /// What the entry is given.
    pub bytes: Vec<u8>,
}

/// All of them.
#[must_use]
pub fn all() -> Vec<Seed> {
    let mut seeds = Vec::new();
    let mut add = |entry, name, bytes: &[u8]| {
        seeds.push(Seed {
            entry,
            name,
            bytes: bytes.to_vec(),
        });
    };
    add("chain", "two buffers", &two_buffers());
    add("chain", "indirect", &indirect());
    // A step is one byte, then what it needs: see the guest of the devices.
    add("block", "read", &[0, 0, 2, 0, 0, 1, 0]);
    add("block", "write and flush", &write_and_flush());
    add(
        "block",
        "discard",
        &[0, 4, 2, 0, 0, 1, 1, 0, 0, 8, 0, 0, 0, 12, 11],
    );
    add(
        "block",
        "shorter file",
        &[15, 0, 16, 0, 0, 0, 0, 2, 0, 0, 1, 0],
    );
    add(
        "net",
        "receive",
        &[0, 0, 0, 16, 0, 15, 1, 60, 0, 0, 1, 2, 3],
    );
    add("net", "send", &send_a_frame());
    add("vsock", "host connects", &host_connects());
    add("vsock", "guest connects", &guest_connects());
    add(
        "console",
        "text",
        b"\x02\x05\x0chello, world\n\x03\x02\x08\x10so much to print",
    );
    add(
        "console",
        "registers",
        &[0, 3, 1, 0x83, 0, 0, 1, 1, 1, 5, 1, 0, 4, 1, 0x10],
    );
    for (name, request) in REQUESTS {
        let mut bytes = vec![15];
        bytes.extend(request.as_bytes());
        add("control", name, &bytes);
    }
    add("snapshot", "envelope", b"\0SPRTVMM\0\x01\0\0\0\x01\0\0\0");
    add(
        "snapshot",
        "seal",
        b"\x01SPRTMEM\0\x01\0\0\0\x01\0\0\0\0\0\x40\0",
    );
    add("snapshot", "numbers", &[3, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0]);
    let mut payload = vec![2];
    payload.extend(FROZEN_PAYLOAD);
    add("snapshot", "payload", &payload);
    seeds
}

/// What is in the envelope of a state that a program wrote.
pub(crate) const FROZEN_PAYLOAD: &[u8] = {
    let state = include_bytes!("../../tests/frozen/v1/state");
    state.split_at(56).1
};

const REQUESTS: &[(&str, &str)] = &[
    (
        "describe",
        "GET / HTTP/1.1\r\n\r\nGET /vm/config HTTP/1.1\r\n\r\n",
    ),
    (
        "drive",
        "PUT /drives/a HTTP/1.1\r\nContent-Length: 78\r\n\r\n\
         {\"drive_id\":\"a\",\"path_on_host\":\"/d\",\"is_root_device\":true,\"is_read_only\":true}",
    ),
    (
        "machine",
        "PUT /machine-config HTTP/1.1\r\nContent-Length: 35\r\n\r\n{\"vcpu_count\":1,\"mem_size_mib\":128}\
         PUT /boot-source HTTP/1.1\r\nContent-Length: 26\r\n\r\n{\"kernel_image_path\":\"/k\"}\
         PUT /actions HTTP/1.1\r\nContent-Length: 31\r\n\r\n{\"action_type\":\"InstanceStart\"}",
    ),
    (
        "network",
        "PUT /network-interfaces/e HTTP/1.1\r\nContent-Length: 73\r\n\r\n\
         {\"iface_id\":\"e\",\"host_dev_name\":\"t\",\"guest_mac\":\"02:00:00:00:00:01\"}     ",
    ),
    (
        "vsock",
        "PUT /vsock HTTP/1.1\r\nExpect: 100-continue\r\nContent-Length: 33\r\n\r\n{\"guest_cid\":3,\"uds_path\":\"/sock\"}",
    ),
    (
        "load",
        "PUT /snapshot/load HTTP/1.1\r\nContent-Length: 90\r\n\r\n\
         {\"snapshot_path\":\"/s\",\"mem_backend\":{\"backend_type\":\"File\",\"backend_path\":\"/m\"}}          ",
    ),
];

fn descriptor(address: u64, len: u32, flags: u16, next: u16) -> Vec<u8> {
    let mut bytes = address.to_le_bytes().to_vec();
    bytes.extend(len.to_le_bytes());
    bytes.extend(flags.to_le_bytes());
    bytes.extend(next.to_le_bytes());
    bytes
}

fn two_buffers() -> Vec<u8> {
    let mut bytes = vec![0, 0];
    bytes.extend(descriptor(0x2000, 16, 1, 1));
    bytes.extend(descriptor(0x3000, 512, 2, 0));
    bytes
}

fn indirect() -> Vec<u8> {
    // The table that it leads to is the rest of this one.
    let mut bytes = vec![0, 0];
    bytes.extend(descriptor(0x1010, 32, 4, 0));
    bytes.extend(descriptor(0x2000, 16, 1, 1));
    bytes.extend(descriptor(0x3000, 512, 2, 0));
    bytes
}

fn write_and_flush() -> Vec<u8> {
    let mut bytes = vec![0, 1, 2, 1, 0, 1];
    bytes.extend([b'x'; 512]);
    bytes.extend([
        0, 0, 2, 2, 0, 0, 1, 0, 12, 11, 255, 255, 255, 255, 0, 0, 0, 0,
    ]);
    bytes
}

fn send_a_frame() -> Vec<u8> {
    let mut bytes = vec![0, 1];
    bytes.extend([0; 12]);
    bytes.extend([100, 0]);
    bytes.extend([b'f'; 64]);
    bytes.extend([0, 15, 0, 12]);
    bytes
}

/// Room for three packets, a process that connects to port 1, and the guest's answer to it.
fn host_connects() -> Vec<u8> {
    let mut bytes = Vec::new();
    for _ in 0..3 {
        bytes.extend([0, 0, 0, 1, 0]);
    }
    bytes.extend([15, 0, 0, 1]);
    bytes.extend([0, 1, 2, 0, 0, 2, 1, 1, 0, 0, 16, 0, 0, 1, 0]);
    bytes.extend([15, 0, 3, 200, 0, 12, 15, 0, 7, 0, 0]);
    bytes
}

/// A connection to a port where somebody listens, data for it, and its end.
fn guest_connects() -> Vec<u8> {
    let mut bytes = vec![0, 0, 0, 1, 0];
    bytes.extend([0, 1, 1, 0, 0, 2, 3, 0, 0, 0, 16, 0, 0, 1, 0]);
    bytes.extend([15, 0, 2, 0, 0]);
    bytes.extend([0, 1, 5, 64, 0, 2, 3, 0, 0, 0, 16, 0, 0, 1, 64, 0]);
    bytes.extend([b'd'; 16]);
    bytes.extend([0, 15, 0, 5, 64, 0]);
    bytes.extend([0, 1, 4, 0, 0, 2, 3, 0, 3, 0, 16, 0, 0, 1, 0]);
    bytes
}
