//! Ways to the host's addresses, and to a neighbour's.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr as UnixAddr, UnixStream};
use std::time::Duration;

use crate::sys::Tried;

const WITHIN: Duration = Duration::from_millis(1500);

/// What a neighbour serves.
const WORD: &[u8] = b"neighbour";

/// `targets`: `ADDRESS:PORT` for TCP and UDP, or `@NAME` for an abstract socket.
pub fn all(tried: &mut Tried, targets: &[String]) {
    let attempts: Vec<_> = targets
        .iter()
        .cloned()
        .map(|target| std::thread::spawn(move || (reach(&target), target)))
        .collect();
    for attempt in attempts {
        let (got, target) = attempt.join().expect("an attempt does not panic");
        tried.fails(&format!("reach {target}"), got);
    }
}

fn reach(target: &str) -> std::io::Result<()> {
    if let Some(name) = target.strip_prefix('@') {
        let address = UnixAddr::from_abstract_name(name)?;
        return UnixStream::connect_addr(&address).map(drop);
    }
    let address: SocketAddr = target
        .parse()
        .map_err(|_| std::io::Error::other("BAD TARGET"))?;
    if let Ok(udp) = UdpSocket::bind(if address.is_ipv4() {
        "0.0.0.0:0"
    } else {
        "[::]:0"
    }) {
        // Nothing answers; whether it arrives is seen outside.
        let _ = udp.send_to(WORD, address);
    }
    TcpStream::connect_timeout(&address, WITHIN).map(drop)
}

/// Serves on every address until killed.
pub fn serve() {
    let listener = TcpListener::bind("0.0.0.0:8080").expect("a free port");
    println!("serving");
    let _ = std::io::stdout().flush();
    for stream in listener.incoming().flatten() {
        let mut stream = stream;
        let _ = stream.write_all(WORD);
        let _ = stream.read(&mut [0]);
    }
}
