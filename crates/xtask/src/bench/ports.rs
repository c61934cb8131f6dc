//! Ports: the rate of a proxy, a new connection, and how soon a port is told.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use super::samples::Samples;
use super::wire::Api;
use super::{Row, against, milliseconds};
use crate::failure::{Failure, Outcome};
use crate::program::Program;

const SPRITE: &str = "ports";
const BYTES: u64 = 1 << 30;
const CONNECTIONS: usize = 200;
const OPENINGS: usize = 30;

/// Where the floor's programs listen, behind a veth of their own.
pub(super) const FLOOR: &str = "100.127.255.5";
const RATE_PORT: u16 = 7001;
const ECHO_PORT: u16 = 7002;

/// A namespace with a veth to ours.
const NAMESPACE: &str = r#"
set -eu
ip netns add "$1"
ip link add "$1" type veth peer name eth0 netns "$1"
ip addr add 100.127.255.4/31 dev "$1"
ip link set "$1" up
ip -n "$1" addr add 100.127.255.5/31 dev eth0
ip -n "$1" link set eth0 up
"#;

/// Listens on all addresses, says so, and becomes the writer of zeroes, or says the first byte of each connection
/// again. Perl is in every base image, and so the same program is floor and measured.
const SERVER: &str = r#"use IO::Socket::INET; $| = 1; $SIG{CHLD} = 'IGNORE';
my ($port, $bytes) = @ARGV;
my $s = IO::Socket::INET->new(LocalPort => $port, Listen => 100, ReuseAddr => 1) or die "listen: $!";
print "listening\n";
while (my $c = $s->accept) {
    if ($bytes) { next if fork; open(STDOUT, '>&', $c); exec 'head', '-c', $bytes, '/dev/zero' }
    sysread($c, my $b, 1); syswrite($c, $b); close $c }"#;

/// Opens a port, and says when.
const OPENER: &str = r#"use IO::Socket::INET; use Time::HiRes; select undef, undef, undef, 0.3;
my $s = IO::Socket::INET->new(LocalPort => $ARGV[0], Listen => 1, ReuseAddr => 1) or die; sleep 5"#;

/// A namespace, and the programs in it, which go with this.
pub(super) struct Namespace {
    name: String,
    programs: Vec<Child>,
}

impl Drop for Namespace {
    fn drop(&mut self) {
        for program in &mut self.programs {
            // It may have ended.
            let _ = program.kill();
            let _ = program.wait();
        }
        let _ = Program::new("ip").args(["netns", "del", &self.name]).read();
    }
}

impl Namespace {
    pub(super) fn new() -> Outcome<Self> {
        let name = format!("floorp{}", std::process::id() % 100_000);
        let made = Self {
            name,
            programs: Vec::new(),
        };
        Program::new("sh")
            .args(["-c", NAMESPACE, "sh", &made.name])
            .read()?;
        Ok(made)
    }

    /// Starts a program, and waits for its first line.
    pub(super) fn start(&mut self, words: &[&str]) -> Outcome {
        let step = || Failure::io(format!("start {}", words[0]));
        let mut child = Command::new("ip")
            .args(["netns", "exec", &self.name])
            .args(words)
            .stdout(Stdio::piped())
            .spawn()
            .map_err(step())?;
        let stdout = child.stdout.take().expect("stdout was asked for as a pipe");
        self.programs.push(child);
        let mut line = String::new();
        BufReader::new(stdout)
            .read_line(&mut line)
            .map_err(step())?;
        match line.is_empty() {
            true => Err(Failure::Check(format!("{} did not start", words[0]))),
            false => Ok(()),
        }
    }
}

/// Measures every row of ports.
///
/// # Errors
/// Something cannot be measured.
pub(super) fn rows(api: &Api) -> Outcome<Vec<Row>> {
    api.create(SPRITE)?;
    let measured = measure(api);
    api.destroy(SPRITE).and(measured)
}

fn measure(api: &Api) -> Outcome<Vec<Row>> {
    let mut namespace = Namespace::new()?;
    let bytes = BYTES.to_string();
    let (rate, echo) = (RATE_PORT.to_string(), ECHO_PORT.to_string());
    namespace.start(&["perl", "-e", SERVER, &rate, &bytes])?;
    namespace.start(&["perl", "-e", SERVER, &echo, "0"])?;
    let _rates = api.exec_until_line(SPRITE, &["perl", "-e", SERVER, &rate, &bytes])?;
    let _echoes = api.exec_until_line(SPRITE, &["perl", "-e", SERVER, &echo, "0"])?;
    Ok(vec![rate_row(api)?, connect_row(api)?, opened_row(api)?])
}

/// One stream through the proxy, against socat between the floor's namespace and ours.
fn rate_row(api: &Api) -> Outcome<Row> {
    let (mut floors, mut times) = (Vec::new(), Vec::new());
    for _ in 0..3 {
        let begun = Instant::now();
        let source = format!("TCP:{FLOOR}:{RATE_PORT}");
        Program::new("socat")
            .args(["-u", &source, "OPEN:/dev/null"])
            .read()?;
        floors.push(begun.elapsed());
        let begun = Instant::now();
        let seen = api.proxy(SPRITE, RATE_PORT)?.read_to_end()?;
        times.push(begun.elapsed());
        if seen != BYTES {
            return Err(Failure::Check(format!("{seen} of {BYTES} bytes came")));
        }
    }
    let (time, floor) = (Samples::new(times).p50(), Samples::new(floors).p50());
    let share = floor.as_secs_f64() / time.as_secs_f64();
    let rate = |time: Duration| format!("{:.0} MB/s", BYTES as f64 / 1e6 / time.as_secs_f64());
    Ok(Row {
        name: "proxy rate",
        measured: format!("{} ({:.0} %)", rate(time), share * 100.0),
        floor: rate(floor),
        limit: "60 %".to_owned(),
        holds: share >= 0.6,
    })
}

/// A new connection and one byte back, against the same without us.
fn connect_row(api: &Api) -> Outcome<Row> {
    let (mut floors, mut times) = (Vec::new(), Vec::new());
    for _ in 0..CONNECTIONS {
        let begun = Instant::now();
        direct().map_err(Failure::io("connect to the floor's program"))?;
        floors.push(begun.elapsed());
        let begun = Instant::now();
        api.proxy(SPRITE, ECHO_PORT)?.echo()?;
        times.push(begun.elapsed());
    }
    Ok(against(
        "proxy connect",
        &Samples::new(times),
        &Samples::new(floors),
        3.0,
    ))
}

fn direct() -> std::io::Result<()> {
    let mut stream = TcpStream::connect((FLOOR, ECHO_PORT))?;
    stream.write_all(b"x")?;
    stream.read_exact(&mut [0])
}

/// From a program's start, 300 ms before it opens a port, until the port is told; printed, and judged by the promise.
fn opened_row(api: &Api) -> Outcome<Row> {
    const BEFORE: Duration = Duration::from_millis(300);
    let mut watch = api.watch_ports(SPRITE)?;
    let mut times = Vec::new();
    for number in 0..OPENINGS {
        let port = (8000 + number).to_string();
        let begun = Instant::now();
        let session = api.exec_begun(SPRITE, &["perl", "-e", OPENER, &port])?;
        watch.until_text(&format!("\"port\":{port},"))?;
        times.push(begun.elapsed().saturating_sub(BEFORE));
        drop(session);
    }
    let samples = Samples::new(times);
    Ok(Row {
        name: "port opened",
        measured: format!(
            "{:.0} / {:.0} ms, with the program's start",
            milliseconds(samples.p50()),
            milliseconds(samples.p99())
        ),
        floor: "-".to_owned(),
        limit: "200 ms".to_owned(),
        holds: samples.p50() <= Duration::from_millis(200),
    })
}
