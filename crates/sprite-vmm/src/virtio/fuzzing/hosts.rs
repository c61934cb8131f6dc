//! The hosts of devices: a file, the other end of a cable, processes with sockets.

use std::fs::File;
use std::io::{Read, Write};
use std::net::Shutdown;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;

use rustix::fs::{MemfdFlags, memfd_create};
use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};
use tempfile::TempDir;

use super::guest::{Buffer, Host, any_buffer};
use crate::fuzzing::Input;
use crate::virtio::VirtioDevice;
use crate::virtio::block::Block;
use crate::virtio::net::Net;
use crate::virtio::vsock::Vsock;

/// Bytes of a disk: whole sectors and a part of one.
const DISK: u64 = (256 << 10) + 100;
const GUEST_CID: u64 = 3;
/// A port of the host where somebody listens.
const LISTENING: u32 = 52;

fn config<T: serde::de::DeserializeOwned>(value: serde_json::Value) -> T {
    serde_json::from_value(value).expect("it is valid")
}

/// A disk's file, in memory.
pub(super) struct Medium(File);

impl Medium {
    pub(super) fn new() -> Self {
        Self(File::from(
            memfd_create("disk", MemfdFlags::CLOEXEC).expect("a file in memory"),
        ))
    }
}

impl Host for Medium {
    fn device(&mut self) -> Box<dyn VirtioDevice> {
        self.0.set_len(DISK).expect("it grows");
        let drive = config(serde_json::json!({
            "drive_id": "disk",
            "path_on_host": format!("/proc/self/fd/{}", self.0.as_raw_fd()),
            "is_root_device": false,
            "cache_type": "Writeback",
        }));
        Box::new(Block::without_workers(&drive).expect("a disk"))
    }

    fn request(&mut self, input: &mut Input<'_>) -> (usize, Vec<Buffer>) {
        let kind: u32 = input.pick(&[0, 1, 4, 8, 11, 13, 14]);
        let mut header = kind.to_le_bytes().to_vec();
        header.extend([0; 4]);
        let sector = match input.byte() % 4 {
            0 => input.long(),
            1 => DISK / 512 - u64::from(input.byte() % 4),
            _ => u64::from(input.half() % 600),
        };
        header.extend(sector.to_le_bytes());
        let data = match (kind, input.byte() % 4) {
            (_, 0) => any_buffer(input),
            (11 | 13, _) => Buffer::Readable(segments(input), 0),
            (1, sectors) => Buffer::Readable(input.bytes(512).to_vec(), usize::from(sectors) * 512),
            (_, sectors) => Buffer::Writable(usize::from(sectors) * 512),
        };
        let header = Buffer::Readable(header, 0);
        (0, vec![header, data, Buffer::Writable(1)])
    }

    /// The file becomes shorter or longer.
    fn act(&mut self, input: &mut Input<'_>) {
        let len = u64::from(input.word()) % (2 * DISK);
        self.0.set_len(len).expect("it is cut");
    }

    fn probe(&mut self) -> (usize, Vec<Buffer>) {
        let mut header = vec![8];
        header.resize(16, 0);
        let header = Buffer::Readable(header, 0);
        (0, vec![header, Buffer::Writable(21)])
    }
}

/// What a discard or write-zeroes names.
fn segments(input: &mut Input<'_>) -> Vec<u8> {
    let mut bytes = Vec::new();
    for _ in 0..input.byte() % 4 {
        bytes.extend(u64::from(input.half() % 600).to_le_bytes());
        bytes.extend(u32::from(input.half() % 600).to_le_bytes());
        bytes.extend(u32::from(input.byte() % 3).to_le_bytes());
    }
    bytes
}

/// A cable, whose other end is the host's.
pub(super) struct Cable {
    host: Option<File>,
}

impl Cable {
    pub(super) fn new() -> Self {
        Self { host: None }
    }
}

impl Host for Cable {
    fn device(&mut self) -> Box<dyn VirtioDevice> {
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let pair = socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None);
        let (ours, theirs) = pair.expect("two sockets");
        self.host = Some(File::from(ours));
        Box::new(Net::over(File::from(theirs)).expect("a card"))
    }

    fn request(&mut self, input: &mut Input<'_>) -> (usize, Vec<Buffer>) {
        if input.byte() & 1 == 0 {
            let room = usize::from(input.half());
            return (0, vec![Buffer::Writable(room)]);
        }
        let mut header = input.bytes(12).to_vec();
        header.resize(12, 0);
        let len = usize::from(input.half());
        let frame = Buffer::Readable(input.bytes(64).to_vec(), len);
        (1, vec![Buffer::Readable(header, 0), frame])
    }

    /// The host sends a frame, or takes all that have come.
    fn act(&mut self, input: &mut Input<'_>) {
        let Some(mut host) = self.host.as_ref() else {
            return;
        };
        let mut frame = vec![0; 1 << 17];
        if input.byte() & 1 == 0 {
            while host.read(&mut frame).is_ok_and(|len| len > 0) {}
            return;
        }
        let len = usize::from(input.half()) + usize::from(input.byte());
        let front = input.bytes(64);
        frame[..front.len()].copy_from_slice(front);
        // It is not taken when too many wait.
        let _ = host.write(&frame[..len.max(1)]);
    }

    fn probe(&mut self) -> (usize, Vec<Buffer>) {
        // A frame that is none comes back even if the other end is full.
        (1, vec![Buffer::Readable(vec![0; 3], 0)])
    }
}

/// Processes of the host on the socket's path.
pub(super) struct Peers {
    directory: TempDir,
    devices: usize,
    listener: Option<UnixListener>,
    streams: Vec<UnixStream>,
}

impl Peers {
    pub(super) fn new() -> Self {
        Self {
            directory: tempfile::tempdir().expect("a temporary directory"),
            devices: 0,
            listener: None,
            streams: Vec::new(),
        }
    }

    fn path(&self) -> PathBuf {
        self.directory.path().join(self.devices.to_string())
    }

    fn keep(&mut self, stream: UnixStream) {
        stream.set_nonblocking(true).expect("sockets can");
        self.streams.push(stream);
    }
}

impl Host for Peers {
    fn device(&mut self) -> Box<dyn VirtioDevice> {
        self.devices += 1;
        let path = self.path();
        let mut listening = path.clone().into_os_string();
        listening.push(format!("_{LISTENING}"));
        let listener = UnixListener::bind(listening).expect("it listens");
        listener.set_nonblocking(true).expect("sockets can");
        self.listener = Some(listener);
        let vsock = config(serde_json::json!({"guest_cid": GUEST_CID, "uds_path": path}));
        Box::new(Vsock::start(&vsock).expect("it listens"))
    }

    fn request(&mut self, input: &mut Input<'_>) -> (usize, Vec<Buffer>) {
        let queue = input.byte() % 4;
        if queue != 1 {
            let room = usize::from(input.half() % 0x1000);
            return (usize::from(queue) & 2, vec![Buffer::Writable(room)]);
        }
        let operation = u16::from(input.byte() % 9);
        let len = u32::from(input.half());
        let kind = u16::from(input.byte() != 1);
        let mut packet = Vec::new();
        packet.extend(GUEST_CID.to_le_bytes());
        packet.extend(2_u64.to_le_bytes());
        packet.extend(u32::from(input.byte() % 4).to_le_bytes());
        let host = input.pick(&[LISTENING, 1 << 30, (1 << 30) + 1, (1 << 30) + 2, 7]);
        packet.extend(host.to_le_bytes());
        packet.extend(len.to_le_bytes());
        packet.extend(kind.to_le_bytes());
        packet.extend(operation.to_le_bytes());
        packet.extend(u32::from(input.byte() % 4).to_le_bytes());
        packet.extend(u32::from(input.half()).to_le_bytes());
        packet.extend(u32::from(input.half()).to_le_bytes());
        let mut buffers = vec![Buffer::Readable(packet, 0)];
        match input.byte() % 4 {
            0 => buffers.push(any_buffer(input)),
            _ if len == 0 => {}
            _ => {
                let len = usize::from(input.half()).max(len as usize);
                buffers.push(Buffer::Readable(input.bytes(16).to_vec(), len));
            }
        }
        (1, buffers)
    }

    /// A process connects, is connected to, writes, reads or goes.
    fn act(&mut self, input: &mut Input<'_>) {
        let which = usize::from(input.byte());
        let action = input.byte() % 8;
        match action {
            0 | 1 => {
                if let Ok(mut stream) = UnixStream::connect(self.path()) {
                    let line = match action {
                        0 => format!("CONNECT {}\n", input.byte() % 4).into_bytes(),
                        _ => input.bytes(24).to_vec(),
                    };
                    let _ = stream.write(&line);
                    self.keep(stream);
                }
                return;
            }
            2 => {
                let accepted = self.listener.as_ref().map(UnixListener::accept);
                if let Some(Ok((stream, _))) = accepted {
                    self.keep(stream);
                }
                return;
            }
            _ => {}
        }
        let Some(number) = which.checked_rem(self.streams.len()) else {
            return;
        };
        let mut stream = &self.streams[number];
        let len = usize::from(input.half());
        match action {
            3 | 4 => drop(stream.write(&vec![7; len])),
            5 => drop(stream.read(&mut vec![0; len])),
            6 => drop(stream.shutdown(input.pick(&[Shutdown::Write, Shutdown::Read]))),
            _ => drop(OwnedFd::from(self.streams.remove(number))),
        }
    }

    fn probe(&mut self) -> (usize, Vec<Buffer>) {
        (1, vec![Buffer::Readable(vec![0; 44], 0)])
    }
}
