use std::io::{ErrorKind, Read, Write};
use std::net::Shutdown;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use proptest::prelude::*;
use rustix::process::{Resource, getrlimit, setrlimit};
use tempfile::TempDir;

use super::packet::{BUFFER_SIZE, SHUTDOWN_READS, SHUTDOWN_SENDS};
use super::{Vsock, VsockMetrics};
use crate::config;
use crate::virtio::TransportState;
use crate::virtio::driver::{Buffer, Driver};

const CID: u64 = 3;
const REQUEST: u16 = 1;
const RESPONSE: u16 = 2;
const RESET: u16 = 3;
const SHUTDOWN: u16 = 4;
const DATA: u16 = 5;
const CREDIT_UPDATE: u16 = 6;
const CREDIT_REQUEST: u16 = 7;

const TO_GUEST: usize = 0;
const TO_HOST: usize = 1;
const EVENTS: usize = 2;

/// The guest's buffer for every stream, unless a test wants another.
const GUEST_BUFFER: u32 = 256 * 1024;
/// A packet's data at most, as Linux offers room for it.
const ROOM: usize = 4096;

#[derive(Clone, Debug, PartialEq, Eq)]
struct Packet {
    source: u64,
    destination: u64,
    host: u32,
    guest: u32,
    kind: u16,
    operation: u16,
    flags: u32,
    buffer: u32,
    forwarded: u32,
    data: Vec<u8>,
}

impl Packet {
    fn new(host: u32, guest: u32, operation: u16) -> Self {
        Self {
            source: CID,
            destination: 2,
            host,
            guest,
            kind: 1,
            operation,
            flags: 0,
            buffer: GUEST_BUFFER,
            forwarded: 0,
            data: Vec::new(),
        }
    }

    fn bytes(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        bytes.extend(self.source.to_le_bytes());
        bytes.extend(self.destination.to_le_bytes());
        bytes.extend(self.guest.to_le_bytes());
        bytes.extend(self.host.to_le_bytes());
        bytes.extend(u32::try_from(self.data.len()).expect("short").to_le_bytes());
        bytes.extend(self.kind.to_le_bytes());
        bytes.extend(self.operation.to_le_bytes());
        bytes.extend(self.flags.to_le_bytes());
        bytes.extend(self.buffer.to_le_bytes());
        bytes.extend(self.forwarded.to_le_bytes());
        bytes.extend(&self.data);
        bytes
    }

    fn read(bytes: &[u8], written: u32) -> Self {
        let short = |at: usize| u16::from_le_bytes(bytes[at..at + 2].try_into().expect("two"));
        let word = |at: usize| u32::from_le_bytes(bytes[at..at + 4].try_into().expect("four"));
        let long = |at: usize| u64::from_le_bytes(bytes[at..at + 8].try_into().expect("eight"));
        let len = word(24) as usize;
        assert_eq!(written as usize, 44 + len, "all that was written is told");
        Self {
            source: long(0),
            destination: long(8),
            host: word(16),
            guest: word(20),
            kind: short(28),
            operation: short(30),
            flags: word(32),
            buffer: word(36),
            forwarded: word(40),
            data: bytes[44..44 + len].to_vec(),
        }
    }
}

/// A guest with a socket.
struct Guest {
    driver: Driver,
    metrics: Arc<VsockMetrics>,
    directory: TempDir,
    name: &'static str,
    received: Vec<Packet>,
    rooms: usize,
}

/// A socket that waits for longer than any test lasts, however busy the computer is.
fn socket(directory: &TempDir, name: &str) -> Vsock {
    patient_socket(directory, name, Duration::from_secs(3600))
}

fn patient_socket(directory: &TempDir, name: &str, patience: Duration) -> Vsock {
    let text = format!(
        r#"{{"guest_cid": {CID}, "uds_path": "{}"}}"#,
        directory.path().join(name).display()
    );
    let vsock: config::Vsock = serde_json::from_str(&text).expect("a socket");
    Vsock::with_patience(&vsock, patience).expect("it listens")
}

impl Guest {
    fn new() -> Self {
        Self::with_rooms(64)
    }

    fn with_rooms(rooms: usize) -> Self {
        let mut guest = Self::without_driver();
        guest.set_up(rooms);
        guest
    }

    fn without_driver() -> Self {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let vsock = socket(&directory, "v.sock");
        Self::of(vsock, directory)
    }

    fn impatient() -> Self {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let vsock = patient_socket(&directory, "v.sock", Duration::from_secs(1));
        let mut guest = Self::of(vsock, directory);
        guest.set_up(64);
        guest
    }

    fn of(vsock: Vsock, directory: TempDir) -> Self {
        Self {
            metrics: vsock.metrics(),
            driver: Driver::attach(Box::new(vsock)),
            directory,
            name: "v.sock",
            received: Vec::new(),
            rooms: 0,
        }
    }

    fn set_up(&mut self, rooms: usize) {
        self.driver.initialize(0);
        for _ in 0..8 {
            self.driver.offer(EVENTS, &[Buffer::Writable(4)]);
        }
        self.driver.notify(EVENTS);
        self.make_room(rooms);
    }

    fn path(&self) -> PathBuf {
        self.directory.path().join(self.name)
    }

    fn make_room(&mut self, rooms: usize) {
        for _ in 0..rooms {
            let room = [Buffer::Writable(44), Buffer::Writable(ROOM)];
            self.driver.offer(TO_GUEST, &room);
        }
        self.rooms += rooms;
        self.driver.notify(TO_GUEST);
    }

    fn send(&mut self, packet: &Packet) {
        self.driver
            .offer(TO_HOST, &[Buffer::Readable(packet.bytes())]);
        self.driver.notify(TO_HOST);
        while self.driver.take_used(TO_HOST).is_empty() {
            assert_eq!(self.driver.read(0x70) & 64, 0, "the socket works");
            std::thread::yield_now();
        }
    }

    /// The next packet; room for another is made.
    fn receive(&mut self) -> Packet {
        while self.received.is_empty() {
            let used = self.driver.wait_used(TO_GUEST);
            let count = used.len();
            for used in used {
                let packet = Packet::read(&used.bytes, used.written);
                assert_eq!(
                    (packet.source, packet.destination, packet.kind),
                    (2, CID, 1)
                );
                self.received.push(packet);
            }
            self.rooms -= count;
            self.make_room(count);
        }
        self.received.remove(0)
    }

    fn expect(&mut self, operation: u16) -> Packet {
        let packet = self.receive();
        assert_eq!(packet.operation, operation, "{packet:?}");
        packet
    }

    fn dial(&self, line: &str) -> UnixStream {
        let mut stream = UnixStream::connect(self.path()).expect("the socket listens");
        stream
            .set_read_timeout(Some(Duration::from_secs(60)))
            .expect("a time limit");
        // It may have been closed at once.
        let _ = stream.write_all(line.as_bytes());
        stream
    }

    /// A connection from the host to `port` of the guest: our end, and the host's port.
    fn connect(&mut self, port: u32) -> (UnixStream, u32) {
        let mut stream = self.dial(&format!("CONNECT {port}\n"));
        let request = self.expect(REQUEST);
        assert_eq!(request.guest, port);
        assert_eq!(request.buffer, BUFFER_SIZE);
        self.send(&Packet::new(request.host, port, RESPONSE));
        assert_eq!(line(&mut stream), format!("OK {}\n", request.host));
        (stream, request.host)
    }

    fn data(&mut self, host: u32, guest: u32, data: &[u8]) {
        let mut packet = Packet::new(host, guest, DATA);
        packet.data = data.to_vec();
        self.send(&packet);
    }

    fn save(&self) -> TransportState {
        self.driver.save()
    }

    /// Goes on as another process would, with its socket at another path.
    fn load(self, state: &TransportState, name: &'static str) -> Self {
        let vsock = socket(&self.directory, name);
        Self {
            metrics: vsock.metrics(),
            driver: self.driver.load(Box::new(vsock), state),
            directory: self.directory,
            name,
            received: self.received,
            rooms: self.rooms,
        }
    }
}

fn line(stream: &mut UnixStream) -> String {
    let mut bytes = Vec::new();
    while bytes.last() != Some(&b'\n') {
        let mut byte = [0];
        stream.read_exact(&mut byte).expect("a line comes");
        bytes.push(byte[0]);
    }
    String::from_utf8(bytes).expect("text")
}

fn is_closed(stream: &mut UnixStream) -> bool {
    match stream.read(&mut [0]) {
        Ok(count) => count == 0,
        Err(error) => error.kind() == ErrorKind::ConnectionReset,
    }
}

#[test]
fn the_host_reaches_a_port_of_the_guest_and_both_speak() {
    let mut guest = Guest::new();
    let (mut stream, host) = guest.connect(1024);
    stream.write_all(b"hello").expect("written");
    let packet = guest.expect(DATA);
    assert_eq!(
        (packet.host, packet.guest, packet.data),
        (host, 1024, b"hello".to_vec())
    );
    guest.data(host, 1024, b"good day");
    let mut answer = [0; 8];
    stream.read_exact(&mut answer).expect("an answer");
    assert_eq!(&answer, b"good day");
    assert_eq!(guest.metrics.opened.total(), 1);
    assert_eq!(guest.metrics.bytes_to_guest.total(), 5);
    assert_eq!(guest.metrics.bytes_to_host.total(), 8);
}

#[test]
fn the_guest_reads_its_address() {
    let guest = Guest::new();
    assert_eq!(guest.driver.config(0, 8), CID.to_le_bytes());
}

#[test]
fn bytes_behind_the_first_line_belong_to_the_stream() {
    let mut guest = Guest::new();
    let _stream = guest.dial("CONNECT 5\nat once");
    let request = guest.expect(REQUEST);
    guest.send(&Packet::new(request.host, 5, RESPONSE));
    assert_eq!(guest.expect(DATA).data, b"at once");
}

#[test]
fn a_first_line_may_come_in_pieces() {
    let mut guest = Guest::new();
    let mut stream = guest.dial("CONN");
    stream.write_all(b"ECT 77").expect("written");
    stream.write_all(b"\n").expect("written");
    assert_eq!(guest.expect(REQUEST).guest, 77);
}

#[test]
fn wrong_first_lines_are_closed_and_hurt_nobody() {
    let mut guest = Guest::new();
    for wrong in [
        "\n",
        "CONNECT x\n",
        "CONNECT 4294967296\n",
        "GET / HTTP/1.1\r\n\r\n",
    ] {
        assert!(is_closed(&mut guest.dial(wrong)), "{wrong:?}");
    }
    let endless = "x".repeat(20);
    assert!(
        is_closed(&mut guest.dial(&endless)),
        "a line without an end"
    );
    drop(guest.dial("CONNECT"));
    guest.connect(1);
}

#[test]
fn a_port_where_nobody_listens_closes_the_connection() {
    let mut guest = Guest::new();
    let mut stream = guest.dial("CONNECT 9\n");
    let request = guest.expect(REQUEST);
    guest.send(&Packet::new(request.host, 9, RESET));
    assert!(is_closed(&mut stream));
    assert_eq!(guest.metrics.refused.total(), 1);
}

#[test]
fn who_connects_before_the_guest_has_a_driver_waits_for_it() {
    let mut guest = Guest::without_driver();
    let mut stream = guest.dial("CONNECT 1024\n");
    guest.set_up(8);
    let request = guest.expect(REQUEST);
    guest.send(&Packet::new(request.host, 1024, RESPONSE));
    assert_eq!(line(&mut stream), format!("OK {}\n", request.host));
}

#[test]
fn the_guest_reaches_who_listens_on_the_host_and_nobody_else() {
    let mut guest = Guest::new();
    let path = format!("{}_{}", guest.path().display(), 7000);
    let listener = UnixListener::bind(path).expect("a listener");
    guest.send(&Packet::new(7000, 40_000, REQUEST));
    let (mut stream, _address) = listener.accept().expect("a connection");
    let response = guest.expect(RESPONSE);
    assert_eq!((response.host, response.guest), (7000, 40_000));
    guest.data(7000, 40_000, b"up");
    let mut bytes = [0; 2];
    stream.read_exact(&mut bytes).expect("bytes");
    stream.write_all(b"down").expect("written");
    assert_eq!(guest.expect(DATA).data, b"down");

    guest.send(&Packet::new(7001, 40_000, REQUEST));
    assert_eq!(guest.expect(RESET).host, 7001);
}

#[test]
fn a_long_stream_arrives_whole_both_ways_however_slow_the_readers_are() {
    let mut guest = Guest::new();
    let (mut stream, host) = guest.connect(1);
    let all: Vec<u8> = (0..1_000_000u32)
        .map(|n| (n.wrapping_mul(2_654_435_761) >> 24) as u8)
        .collect();
    let sent = all.clone();
    let mut writing = stream.try_clone().expect("a second descriptor");
    let writer = std::thread::spawn(move || writing.write_all(&sent));
    let mut received = Vec::new();
    while received.len() < all.len() {
        received.extend(guest.receive().data);
        let mut update = Packet::new(host, 1, CREDIT_UPDATE);
        update.forwarded = u32::try_from(received.len()).expect("short");
        guest.send(&update);
    }
    writer.join().expect("no panic").expect("all is written");
    assert_eq!(received, all);

    let expected = all.clone();
    let reader = std::thread::spawn(move || {
        let mut bytes = vec![0; expected.len()];
        stream.read_exact(&mut bytes).map(|()| bytes == expected)
    });
    let (mut sent, mut forwarded) = (0, 0);
    while sent < all.len() {
        let free = BUFFER_SIZE as usize - (sent - forwarded);
        let count = free.min(all.len() - sent).min(10_000);
        if count == 0 {
            // Every packet tells.
            forwarded = guest.receive().forwarded as usize;
            continue;
        }
        guest.data(host, 1, &all[sent..sent + count]);
        sent += count;
    }
    assert!(reader.join().expect("no panic").expect("all is read"));
}

#[test]
fn no_more_is_sent_than_the_guest_has_room_for() {
    let mut guest = Guest::new();
    let mut stream = guest.dial("CONNECT 1\n");
    let request = guest.expect(REQUEST);
    let mut response = Packet::new(request.host, 1, RESPONSE);
    response.buffer = 10;
    guest.send(&response);
    line(&mut stream);
    stream.write_all(&[7; 25]).expect("written");
    assert_eq!(guest.expect(DATA).data, [7; 10]);
    guest.expect(CREDIT_REQUEST);
    let mut update = Packet::new(request.host, 1, CREDIT_UPDATE);
    (update.buffer, update.forwarded) = (10, 4);
    guest.send(&update);
    assert_eq!(guest.expect(DATA).data, [7; 4]);
    guest.expect(CREDIT_REQUEST);
    // More than was ever sent: a lie that opens nothing.
    update.forwarded = 1000;
    guest.send(&update);
    update.forwarded = 14;
    guest.send(&update);
    assert_eq!(guest.expect(DATA).data, [7; 10]);
}

#[test]
fn a_guest_that_sends_more_than_it_may_loses_the_connection() {
    let mut guest = Guest::new();
    let (mut stream, host) = guest.connect(1);
    // Fills the socket of a host that does not read, then our buffer, then one more.
    loop {
        guest.data(host, 1, &[1; 4096]);
        if guest.metrics.cut.total() > 0 {
            break;
        }
        assert!(
            guest.metrics.bytes_to_host.total() < 8 << 20,
            "the buffer is bounded"
        );
    }
    while guest.receive().operation != RESET {}
    let mut rest = Vec::new();
    let _ = stream.read_to_end(&mut rest);
    assert!(!rest.is_empty());
}

#[test]
fn the_guest_may_ask_for_credit() {
    let mut guest = Guest::new();
    let (_stream, host) = guest.connect(1);
    guest.data(host, 1, b"abc");
    guest.send(&Packet::new(host, 1, CREDIT_REQUEST));
    assert_eq!(guest.expect(CREDIT_UPDATE).forwarded, 3);
}

#[test]
fn one_half_may_end_before_the_other() {
    let mut guest = Guest::new();
    let (mut stream, host) = guest.connect(1);
    stream.write_all(b"question").expect("written");
    stream.shutdown(Shutdown::Write).expect("half closed");
    assert_eq!(guest.expect(DATA).data, b"question");
    assert_eq!(guest.expect(SHUTDOWN).flags, SHUTDOWN_SENDS);
    guest.data(host, 1, b"answer");
    let mut end = Packet::new(host, 1, SHUTDOWN);
    end.flags = SHUTDOWN_SENDS | SHUTDOWN_READS;
    guest.send(&end);
    let mut answer = Vec::new();
    stream
        .read_to_end(&mut answer)
        .expect("the answer and its end");
    assert_eq!(answer, b"answer");
    guest.expect(RESET);
}

#[test]
fn the_guest_s_end_of_sending_reaches_the_host_behind_its_bytes() {
    let mut guest = Guest::new();
    let (mut stream, host) = guest.connect(1);
    guest.data(host, 1, b"all of it");
    let mut end = Packet::new(host, 1, SHUTDOWN);
    end.flags = SHUTDOWN_SENDS;
    guest.send(&end);
    let mut bytes = Vec::new();
    stream.read_to_end(&mut bytes).expect("to the end");
    assert_eq!(bytes, b"all of it");
    stream
        .write_all(b"still here")
        .expect("the other half lives");
    assert_eq!(guest.expect(DATA).data, b"still here");
}

#[test]
fn what_the_host_wrote_before_it_closed_reaches_the_guest() {
    let mut guest = Guest::new();
    let (mut stream, host) = guest.connect(1);
    stream.write_all(b"last words").expect("written");
    drop(stream);
    let mut heard = Vec::new();
    let mut shut = 0;
    while shut != SHUTDOWN_SENDS | SHUTDOWN_READS {
        let packet = guest.receive();
        heard.extend(packet.data);
        shut |= packet.flags;
    }
    assert_eq!(heard, b"last words");
    guest.data(host, 1, b"into the void");
    guest.send(&Packet::new(host, 1, RESET));
    // Over: whatever more there is belongs to nothing.
    guest.send(&Packet::new(host, 1, CREDIT_REQUEST));
    guest.expect(RESET);
}

#[test]
fn a_reset_of_the_guest_closes_the_host_s_end_behind_its_bytes() {
    let mut guest = Guest::new();
    let (mut stream, host) = guest.connect(1);
    let mut bytes = 0;
    // More than the host's socket takes, so that some is still with us.
    while guest.metrics.bytes_to_host.total() == bytes || bytes < 200_000 {
        bytes = guest.metrics.bytes_to_host.total();
        if bytes >= 240_000 {
            break;
        }
        guest.data(host, 1, &[5; 4000]);
    }
    let sent = guest.metrics.bytes_to_host.total();
    guest.send(&Packet::new(host, 1, RESET));
    // The guest may use the ports again at once.
    let mut all = Vec::new();
    stream.read_to_end(&mut all).expect("to the end");
    assert_eq!(all.len() as u64, sent);
}

#[test]
fn packets_of_no_connection_are_answered_by_a_reset() {
    let mut guest = Guest::new();
    for operation in [
        RESPONSE,
        SHUTDOWN,
        DATA,
        CREDIT_UPDATE,
        CREDIT_REQUEST,
        0,
        8,
        999,
    ] {
        guest.send(&Packet::new(77, 88, operation));
        let reset = guest.expect(RESET);
        assert_eq!((reset.host, reset.guest), (77, 88));
    }
    let mut datagram = Packet::new(77, 88, DATA);
    datagram.kind = 3;
    guest.send(&datagram);
    guest.expect(RESET);
    guest.send(&Packet::new(77, 88, RESET));
    let mut other = Packet::new(77, 88, DATA);
    other.source = 4;
    guest.send(&other);
    other.source = CID;
    other.destination = 1;
    guest.send(&other);
    guest.connect(1);
    assert!(
        guest.received.is_empty(),
        "resets and others' packets are not answered"
    );
}

#[test]
fn packets_at_the_wrong_moment_cut_the_connection() {
    let mut guest = Guest::new();
    for operation in [REQUEST, RESPONSE] {
        let (mut stream, host) = guest.connect(1);
        guest.send(&Packet::new(host, 1, operation));
        guest.expect(RESET);
        assert!(is_closed(&mut stream));
    }
    let mut stream = guest.dial("CONNECT 1\n");
    let request = guest.expect(REQUEST);
    guest.data(request.host, 1, b"before the response");
    guest.expect(RESET);
    assert!(is_closed(&mut stream));
    let (mut stream, host) = guest.connect(1);
    let mut long = Packet::new(host, 1, DATA).bytes();
    long[24] = 1;
    guest.driver.request(TO_HOST, &[Buffer::Readable(long)]);
    guest.expect(RESET);
    assert!(is_closed(&mut stream));
}

#[test]
fn a_reader_that_does_not_read_stops_nobody_else() {
    let mut guest = Guest::new();
    let (_idle, slow) = guest.connect(1);
    for _ in 0..15 {
        guest.data(slow, 1, &[0; 4096]);
    }
    let (mut stalled, _port) = guest.connect_among(2);
    stalled.set_nonblocking(true).expect("set");
    // The guest's room for this one runs out.
    while stalled.write(&[0; 65536]).is_ok() {}
    let mut streams: Vec<_> = (0..300)
        .map(|port| guest.connect_among(port + 100))
        .collect();
    for (number, (stream, host)) in streams.iter_mut().enumerate() {
        let text = format!("{number}");
        stream.write_all(text.as_bytes()).expect("written");
        loop {
            let packet = guest.receive();
            if packet.host == *host && packet.operation == DATA {
                assert_eq!(packet.data, text.as_bytes());
                break;
            }
        }
    }
}

impl Guest {
    /// As `connect`, while other connections have packets too.
    fn connect_among(&mut self, port: u32) -> (UnixStream, u32) {
        let mut stream = self.dial(&format!("CONNECT {port}\n"));
        let request = loop {
            let packet = self.receive();
            if packet.operation == REQUEST {
                break packet;
            }
        };
        self.send(&Packet::new(request.host, port, RESPONSE));
        line(&mut stream);
        (stream, request.host)
    }
}

/// Both ends of all connections are this process's, and a process has a thousand files unless it asks for more.
fn ask_for_more_files() {
    let mut limits = getrlimit(Resource::Nofile);
    limits.current = limits
        .maximum
        .map_or(Some(4096), |most| Some(most.min(4096)));
    setrlimit(Resource::Nofile, limits)
        .expect("up to its maximum a process may have what it asks for");
}

#[test]
fn more_connections_than_there_may_be_are_closed() {
    ask_for_more_files();
    let mut guest = Guest::new();
    let waiting: Vec<_> = (0..1024).map(|_| guest.dial("CONN")).collect();
    assert!(is_closed(&mut guest.dial("CONNECT 1\n")), "one too many");
    guest.send(&Packet::new(1, 1, REQUEST));
    guest.expect(RESET);
    drop(waiting);
    while is_closed_before_answer(&mut guest) {}
}

#[test]
fn who_does_not_say_a_port_and_whom_the_guest_does_not_answer_is_closed_after_a_while() {
    let mut guest = Guest::impatient();
    assert!(is_closed(&mut guest.dial("CONN")), "no port was said");
    let mut unanswered = guest.dial("CONNECT 1\n");
    let request = guest.expect(REQUEST);
    assert!(is_closed(&mut unanswered), "the guest did not answer");
    assert_eq!(guest.expect(RESET).host, request.host);
}

/// Room comes back when the event loop has seen the others go.
fn is_closed_before_answer(guest: &mut Guest) -> bool {
    let mut stream = guest.dial("CONNECT 1\n");
    stream
        .set_read_timeout(Some(Duration::from_millis(100)))
        .expect("a time limit");
    matches!(stream.read(&mut [0]), Ok(0))
}

#[test]
fn a_guest_without_room_for_packets_gets_them_when_it_has() {
    let mut guest = Guest::with_rooms(0);
    let mut stream = guest.dial("CONNECT 1\n");
    guest.make_room(1);
    let request = guest.expect(REQUEST);
    guest.send(&Packet::new(request.host, 1, RESPONSE));
    line(&mut stream);
    stream.write_all(b"hello").expect("written");
    assert_eq!(guest.expect(DATA).data, b"hello");
}

#[test]
fn answers_for_a_guest_that_does_not_take_them_are_bounded() {
    let mut guest = Guest::with_rooms(0);
    let mut offered = 0u32;
    let mut used = 0;
    while offered < 1000 {
        if offered - used == 200 {
            let took = u32::try_from(guest.driver.take_used(TO_HOST).len()).expect("few");
            used += took;
            if took == 0 && used >= 256 {
                break;
            }
            std::thread::yield_now();
            continue;
        }
        let stray = Packet::new(offered, 1, DATA).bytes();
        guest.driver.offer(TO_HOST, &[Buffer::Readable(stray)]);
        guest.driver.notify(TO_HOST);
        offered += 1;
    }
    assert!(used < 256 + 200, "the guest has to wait: {used}");
    guest.make_room(64);
    for number in 0..offered {
        assert_eq!(guest.expect(RESET).host, number);
    }
}

#[test]
fn a_driver_s_reset_ends_all_connections_and_new_ones_work() {
    let mut guest = Guest::new();
    let (mut stream, _host) = guest.connect(1);
    guest.received.clear();
    guest.rooms = 0;
    guest.set_up(16);
    assert!(is_closed(&mut stream));
    guest.connect(1);
}

#[test]
fn a_pause_ends_no_connection() {
    let mut guest = Guest::new();
    let (mut stream, host) = guest.connect(1);
    guest.driver.devices.pause();
    stream.write_all(b"meanwhile").expect("written");
    guest.driver.devices.resume();
    assert_eq!(guest.expect(DATA).data, b"meanwhile");
    guest.data(host, 1, b"ok");
    stream.read_exact(&mut [0; 2]).expect("bytes");
}

#[test]
fn a_load_tells_the_guest_and_new_connections_wait_until_it_knows() {
    let mut guest = Guest::new();
    let (_old, host) = guest.connect(1);
    let state = guest.save();
    let mut guest = guest.load(&state, "new.sock");
    let told = guest.driver.wait_used(EVENTS);
    assert_eq!((told[0].written, &told[0].bytes), (4, &vec![0; 4]));

    let mut stream = guest.dial("CONNECT 1024\n");
    guest.data(host, 1, b"of before");
    // The guest knows when it has given the event's buffer back.
    assert!(
        guest.driver.take_used(TO_GUEST).is_empty(),
        "nothing before that"
    );
    guest.driver.offer(EVENTS, &[Buffer::Writable(4)]);
    assert!(
        guest.driver.notify_if_asked(EVENTS),
        "it is asked, though other buffers are left"
    );
    let request = guest.expect(REQUEST);
    assert_eq!(request.guest, 1024);
    assert_ne!(request.host, host, "the guest may not have closed its end");
    guest.send(&Packet::new(request.host, 1024, RESPONSE));
    assert_eq!(line(&mut stream), format!("OK {}\n", request.host));
    guest.send(&Packet::new(host, 1, CREDIT_REQUEST));
    assert_eq!(guest.expect(RESET).host, host, "the old one is of nobody");
}

#[test]
fn a_guest_without_room_for_events_is_told_of_a_load_when_it_has() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let vsock = socket(&directory, "v.sock");
    let driver = Driver::start(Box::new(vsock), 0);
    let state = driver.save();
    let mut driver = driver.load(Box::new(socket(&directory, "new.sock")), &state);
    driver.offer(EVENTS, &[Buffer::Writable(4)]);
    driver.notify(EVENTS);
    assert_eq!(driver.wait_used(EVENTS)[0].bytes, [0; 4]);
}

#[test]
fn loaded_and_saved_again_the_state_is_the_same() {
    let guest = Guest::new();
    let state = guest.save();
    let vsock = socket(&guest.directory, "new.sock");
    let fresh = Driver::attach_paused(Box::new(vsock), Arc::clone(&guest.driver.memory));
    fresh.transport.restore(&state).expect("the state fits");
    assert_eq!(fresh.save(), state);
    let text = serde_json::to_string(&state).expect("the state serializes");
    assert_eq!(
        serde_json::from_str::<TransportState>(&text).expect("and back"),
        state
    );
}

#[test]
fn a_socket_that_exists_is_not_taken_over() {
    let guest = Guest::new();
    let text = format!(
        r#"{{"guest_cid": 3, "uds_path": "{}"}}"#,
        guest.path().display()
    );
    let vsock: config::Vsock = serde_json::from_str(&text).expect("a socket");
    assert!(Vsock::start(&vsock).is_err());
}

fn any_packet() -> impl Strategy<Value = Packet> {
    let ports = prop_oneof![Just(1u32), Just(2), Just((1 << 30) + 1), any::<u32>()];
    let header = (
        0u16..9,
        0u32..4,
        0u64..5,
        0u64..4,
        0u16..3,
        any::<u32>(),
        any::<u32>(),
    );
    (
        ports.clone(),
        ports,
        header,
        prop::collection::vec(any::<u8>(), 0..300),
    )
        .prop_map(|(host, guest, header, data)| {
            let (operation, flags, source, destination, kind, buffer, forwarded) = header;
            Packet {
                source,
                destination,
                host,
                guest,
                kind,
                operation,
                flags,
                buffer,
                forwarded,
                data,
            }
        })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    /// Whatever a guest sends, the socket goes on for others.
    #[test]
    fn no_packets_stop_the_socket(packets in prop::collection::vec((any_packet(), any::<bool>(), 0usize..400), 0..60)) {
        let mut guest = Guest::new();
        let (_stream, host) = guest.connect(1);
        for (mut packet, ours, cut) in packets {
            if ours {
                (packet.source, packet.destination, packet.kind) = (CID, 2, 1);
                (packet.host, packet.guest) = (host, 1);
            }
            let mut bytes = packet.bytes();
            bytes.truncate(bytes.len().saturating_sub(cut / 8));
            bytes.push(0);
            guest.driver.request(TO_HOST, &[Buffer::Readable(bytes)]);
        }
        guest.connect_among(1024);
    }

    /// Whatever the host's processes write first, the socket goes on for others.
    #[test]
    fn no_first_lines_stop_the_socket(lines in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..40), 0..40)) {
        let mut guest = Guest::new();
        for line in lines {
            let mut stream = UnixStream::connect(guest.path()).expect("the socket listens");
            let _ = stream.write_all(&line);
        }
        guest.connect_among(1024);
    }
}
