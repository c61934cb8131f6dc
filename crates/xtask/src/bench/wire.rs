//! The smallest client of the public API: what is measured is the server, not an SDK.

use std::fs::File;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::time::Duration;

use crate::failure::{Failure, Outcome};

/// Longer than anything that is measured.
const PATIENCE: Duration = Duration::from_secs(120);

/// Large enough that reading is not what is measured.
const BUFFER: usize = 1 << 20;

/// Source: RFC 6455 §5.2.
const OPCODE_TEXT: u8 = 1;
const OPCODE_BINARY: u8 = 2;
const OPCODE_CLOSE: u8 = 8;

/// Stream ids of a command without a terminal.
const STDOUT: u8 = 1;
const EXIT: u8 = 3;

/// A server and who asks it.
#[derive(Debug, Clone)]
pub struct Api {
    address: String,
    token: String,
}

/// How a command ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ended {
    /// Its exit status.
    pub status: u8,
    /// How many bytes it wrote to its standard output.
    pub stdout: u64,
}

impl Api {
    /// `url` is `http://host:port`.
    pub fn new(url: &str, token: &str) -> Self {
        let address = url
            .trim_start_matches("http://")
            .trim_end_matches('/')
            .to_owned();
        Self {
            address,
            token: token.to_owned(),
        }
    }

    /// Creates a sprite.
    ///
    /// # Errors
    /// The answer is not 201.
    pub fn create(&self, name: &str) -> Outcome {
        let body = format!("{{\"name\":\"{name}\"}}");
        self.request("POST", "/v1/sprites", &body, 201)
    }

    /// Destroys it.
    ///
    /// # Errors
    /// The answer is not 204.
    pub fn destroy(&self, name: &str) -> Outcome {
        self.request("DELETE", &format!("/v1/sprites/{name}"), "", 204)
    }

    /// Runs a command over a WebSocket of its own and reads what it writes.
    ///
    /// # Errors
    /// The connection fails or ends before the exit status.
    pub fn exec(&self, name: &str, words: &[&str]) -> Outcome<Ended> {
        let mut socket = self.exec_begun(name, words)?;
        let step = || Failure::io(format!("run {words:?} in {name}"));
        read_frames(&mut socket.reader).map_err(step())
    }

    /// Starts a command over a WebSocket of its own.
    ///
    /// # Errors
    /// The command does not start.
    pub fn exec_begun(&self, name: &str, words: &[&str]) -> Outcome<Socket> {
        let mut query = String::from("stdin=false");
        for word in words {
            query.push_str("&cmd=");
            query.push_str(&encode(word));
        }
        self.upgrade(&format!("/v1/sprites/{name}/exec?{query}"))
    }

    /// Starts a command, and waits for the first that it writes.
    ///
    /// # Errors
    /// The command does not start, or ends before.
    pub fn exec_until_line(&self, name: &str, words: &[&str]) -> Outcome<Socket> {
        let mut socket = self.exec_begun(name, words)?;
        loop {
            let (opcode, payload) = socket.message()?;
            if opcode == OPCODE_BINARY && payload.first() == Some(&STDOUT) {
                return Ok(socket);
            }
        }
    }

    /// Connects to a port of a sprite.
    ///
    /// # Errors
    /// Nobody listens there.
    pub fn proxy(&self, name: &str, port: u16) -> Outcome<Socket> {
        let path = format!("/v1/sprites/{name}/proxy?port={port}&half_close=true");
        self.upgrade(&path)
    }

    /// Watches the ports of a sprite; the list has come when this returns.
    ///
    /// # Errors
    /// There is no list.
    pub fn watch_ports(&self, name: &str) -> Outcome<Socket> {
        let mut socket = self.upgrade(&format!("/v1/sprites/{name}/ports/watch"))?;
        socket.until_text("\"port_list\"")?;
        Ok(socket)
    }

    fn upgrade(&self, path: &str) -> Outcome<Socket> {
        let mut stream = self.connect()?;
        let head = format!(
            "GET {path} HTTP/1.1\r\nHost: {}\r\nAuthorization: Bearer {}\r\n\
             Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
             Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n",
            self.address, self.token
        );
        let step = || Failure::io(format!("open a WebSocket at {path}"));
        stream.write_all(head.as_bytes()).map_err(step())?;
        // Small, so that making it is not measured.
        let mut reader = BufReader::new(stream.try_clone().map_err(step())?);
        let (status, _) = read_head(&mut reader).map_err(step())?;
        if status != 101 {
            let mut text = String::new();
            // Whatever came of the body explains the refusal.
            let _ = reader.take(4096).read_to_string(&mut text);
            return Err(Failure::Check(format!(
                "{path} was answered with {status}: {text}"
            )));
        }
        Ok(Socket { stream, reader })
    }

    fn connect(&self) -> Outcome<TcpStream> {
        let step = || Failure::io(format!("connect to {}", self.address));
        let stream = TcpStream::connect(&self.address).map_err(step())?;
        stream.set_nodelay(true).map_err(step())?;
        stream.set_read_timeout(Some(PATIENCE)).map_err(step())?;
        Ok(stream)
    }

    /// Writes a file of a sprite.
    ///
    /// # Errors
    /// The answer is not 200.
    pub fn write_file(&self, name: &str, path: &str, from: &Path) -> Outcome {
        let step = || Failure::io(format!("write {path}"));
        let mut from = File::open(from).map_err(step())?;
        let length = from.metadata().map_err(step())?.len();
        let path = format!("/v1/sprites/{name}/fs/write?path={}", encode(path));
        let mut stream = self.begun("PUT", &path, length)?;
        let mut buffer = vec![0; BUFFER];
        loop {
            let read = from.read(&mut buffer).map_err(step())?;
            if read == 0 {
                break;
            }
            stream.write_all(&buffer[..read]).map_err(step())?;
        }
        self.answer(stream, &format!("PUT {path}"), 200)
    }

    /// Reads a file of a sprite into one here.
    ///
    /// # Errors
    /// The answer is not 200, or breaks off.
    pub fn read_file(&self, name: &str, path: &str, to: &Path) -> Outcome {
        let step = || Failure::io(format!("read {path}"));
        let path = format!("/v1/sprites/{name}/fs/read?path={}", encode(path));
        let mut to = File::create(to).map_err(step())?;
        let mut reader = BufReader::with_capacity(BUFFER, self.begun("GET", &path, 0)?);
        let (status, length) = read_head(&mut reader).map_err(step())?;
        let length = length.filter(|_| status == 200);
        let mut left = length.ok_or_else(|| step()(bad()))?;
        let mut buffer = vec![0; BUFFER];
        while left > 0 {
            let read = reader.read(&mut buffer).map_err(step())?;
            if read == 0 {
                return Err(step()(bad()));
            }
            to.write_all(&buffer[..read]).map_err(step())?;
            left = left.saturating_sub(read as u64);
        }
        Ok(())
    }

    /// One page of sprites.
    pub fn list(&self, most: usize) -> Outcome {
        self.request("GET", &format!("/v1/sprites?max_results={most}"), "", 200)
    }

    /// Puts a sprite to sleep.
    pub fn sleep(&self, name: &str) -> Outcome {
        self.request("POST", &format!("/v1/sprites/{name}/sleep"), "", 204)
    }

    /// Makes a checkpoint.
    ///
    /// # Errors
    /// It is not made.
    pub fn checkpoint(&self, name: &str) -> Outcome {
        self.progress(&format!("/v1/sprites/{name}/checkpoint"))
    }

    /// Brings a sprite back to a checkpoint.
    ///
    /// # Errors
    /// It is not brought back.
    pub fn restore(&self, name: &str, id: &str) -> Outcome {
        self.progress(&format!("/v1/sprites/{name}/checkpoints/{id}/restore"))
    }

    /// Makes a sprite with the disk of another.
    ///
    /// # Errors
    /// The answer is not 201.
    pub fn fork(&self, source: &str, name: &str) -> Outcome {
        let body = format!("{{\"name\":\"{name}\",\"from\":{{\"sprite\":\"{source}\"}}}}");
        self.request("POST", "/v1/sprites", &body, 201)
    }

    /// Asks for what is told line by line, until it is complete.
    fn progress(&self, path: &str) -> Outcome {
        let mut stream = self.begun("POST", path, 0)?;
        let mut said = String::new();
        let step = Failure::io(format!("POST {path}"));
        stream.read_to_string(&mut said).map_err(step)?;
        if said.contains("\"type\":\"complete\"") {
            Ok(())
        } else {
            Err(Failure::Check(format!("POST {path}: {said}")))
        }
    }

    /// A request whose body of `length` bytes is to follow.
    fn begun(&self, method: &str, path: &str, length: u64) -> Outcome<TcpStream> {
        let mut stream = self.connect()?;
        let head = format!(
            "{method} {path} HTTP/1.1\r\nHost: {}\r\nAuthorization: Bearer {}\r\nConnection: close\r\n\
             Content-Type: application/json\r\nContent-Length: {length}\r\n\r\n",
            self.address, self.token,
        );
        let step = Failure::io(format!("{method} {path}"));
        stream.write_all(head.as_bytes()).map_err(step)?;
        Ok(stream)
    }

    fn request(&self, method: &str, path: &str, body: &str, wanted: u16) -> Outcome {
        let mut stream = self.begun(method, path, body.len() as u64)?;
        let asked = format!("{method} {path}");
        let step = Failure::io(asked.clone());
        stream.write_all(body.as_bytes()).map_err(step)?;
        self.answer(stream, &asked, wanted)
    }

    /// Reads an answer without a body that matters.
    fn answer(&self, stream: TcpStream, asked: &str, wanted: u16) -> Outcome {
        let step = || Failure::io(asked.to_owned());
        let mut reader = BufReader::new(stream);
        let (status, length) = read_head(&mut reader).map_err(step())?;
        let mut text = String::new();
        reader
            .take(length.unwrap_or(4096))
            .read_to_string(&mut text)
            .map_err(step())?;
        if status == wanted {
            Ok(())
        } else {
            Err(Failure::Check(format!(
                "{asked} was answered with {status}: {text}"
            )))
        }
    }
}

/// An open WebSocket.
#[derive(Debug)]
pub struct Socket {
    stream: TcpStream,
    reader: BufReader<TcpStream>,
}

impl Drop for Socket {
    fn drop(&mut self) {
        // A masked, empty close, as a client ends; the server may be gone already.
        let _ = self
            .stream
            .write_all(&[0x80 | OPCODE_CLOSE, 0x80, 0, 0, 0, 0]);
    }
}

impl Socket {
    /// Sends a short message.
    fn send(&mut self, opcode: u8, payload: &[u8]) -> Outcome {
        let length = u8::try_from(payload.len())
            .ok()
            .filter(|length| *length < 126);
        let length = length.expect("messages of ours are short");
        // Masked with zeroes.
        let mut message = vec![0x80 | opcode, 0x80 | length, 0, 0, 0, 0];
        message.extend_from_slice(payload);
        self.stream
            .write_all(&message)
            .map_err(Failure::io("send a message"))
    }

    fn message(&mut self) -> Outcome<(u8, Vec<u8>)> {
        let step = || Failure::io("read a message");
        let (opcode, length) = read_frame_head(&mut self.reader).map_err(step())?;
        if opcode == OPCODE_CLOSE {
            return Err(step()(bad()));
        }
        let mut payload = Vec::new();
        let mut reader = (&mut self.reader).take(length);
        reader.read_to_end(&mut payload).map_err(step())?;
        Ok((opcode, payload))
    }

    /// Reads until a text that holds `part`.
    ///
    /// # Errors
    /// The socket ends before.
    pub fn until_text(&mut self, part: &str) -> Outcome {
        loop {
            let (opcode, payload) = self.message()?;
            if opcode == OPCODE_TEXT && String::from_utf8_lossy(&payload).contains(part) {
                return Ok(());
            }
        }
    }

    /// Sends a byte, and waits for one.
    ///
    /// # Errors
    /// None comes.
    pub fn echo(&mut self) -> Outcome {
        self.send(OPCODE_BINARY, b"x")?;
        loop {
            if self.message()?.0 == OPCODE_BINARY {
                return Ok(());
            }
        }
    }

    /// Reads to the end of the port, and counts its bytes.
    ///
    /// # Errors
    /// The socket breaks.
    pub fn read_to_end(&mut self) -> Outcome<u64> {
        let step = || Failure::io("read from a port");
        let mut seen = 0;
        loop {
            let (opcode, length) = read_frame_head(&mut self.reader).map_err(step())?;
            match opcode {
                OPCODE_BINARY => seen += length,
                // The end of its direction.
                OPCODE_TEXT | OPCODE_CLOSE => return Ok(seen),
                _ => {}
            }
            skip(&mut self.reader, length).map_err(step())?;
        }
    }
}

/// Status and length of an answer.
fn read_head(reader: &mut impl BufRead) -> std::io::Result<(u16, Option<u64>)> {
    let mut line = String::new();
    reader.read_line(&mut line)?;
    let status = line
        .split(' ')
        .nth(1)
        .and_then(|code| code.parse().ok())
        .ok_or_else(bad)?;
    let mut length = None;
    loop {
        line.clear();
        reader.read_line(&mut line)?;
        let header = line.trim();
        if header.is_empty() {
            return Ok((status, length));
        }
        if let Some((name, value)) = header.split_once(':')
            && name.eq_ignore_ascii_case("content-length")
        {
            length = value.trim().parse().ok();
        }
    }
}

/// What a frame is, and how long its payload.
fn read_frame_head(reader: &mut impl BufRead) -> std::io::Result<(u8, u64)> {
    let mut head = [0; 2];
    reader.read_exact(&mut head)?;
    let length = match head[1] & 0x7f {
        126 => {
            let mut long = [0; 2];
            reader.read_exact(&mut long)?;
            u64::from(u16::from_be_bytes(long))
        }
        127 => {
            let mut long = [0; 8];
            reader.read_exact(&mut long)?;
            u64::from_be_bytes(long)
        }
        short => u64::from(short),
    };
    Ok((head[0] & 0x0f, length))
}

/// Reads frames until the exit status, and drops their payload.
fn read_frames(reader: &mut impl BufRead) -> std::io::Result<Ended> {
    let mut stdout = 0;
    loop {
        let (opcode, length) = read_frame_head(reader)?;
        match opcode {
            OPCODE_BINARY if length > 0 => {
                let mut stream = [0];
                reader.read_exact(&mut stream)?;
                if stream[0] == EXIT {
                    let mut status = [0];
                    reader.read_exact(&mut status)?;
                    return Ok(Ended {
                        status: status[0],
                        stdout,
                    });
                }
                if stream[0] == STDOUT {
                    stdout += length - 1;
                }
                skip(reader, length - 1)?;
            }
            OPCODE_CLOSE => return Err(bad()),
            OPCODE_TEXT => skip(reader, length)?,
            _ => skip(reader, length)?,
        }
    }
}

fn skip(reader: &mut impl BufRead, mut length: u64) -> std::io::Result<()> {
    while length > 0 {
        let here = reader.fill_buf()?.len();
        if here == 0 {
            return Err(std::io::ErrorKind::UnexpectedEof.into());
        }
        let taken = here.min(usize::try_from(length).unwrap_or(usize::MAX));
        reader.consume(taken);
        length -= taken as u64;
    }
    Ok(())
}

fn bad() -> std::io::Error {
    std::io::Error::new(
        std::io::ErrorKind::InvalidData,
        "the answer is not what it should be",
    )
}

fn encode(word: &str) -> String {
    let mut encoded = String::new();
    for byte in word.bytes() {
        if byte.is_ascii_alphanumeric() || b"-_.~".contains(&byte) {
            encoded.push(char::from(byte));
        } else {
            encoded.push_str(&format!("%{byte:02X}"));
        }
    }
    encoded
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn output_is_counted_and_the_exit_status_ends_it() {
        let mut bytes = vec![0x81, 2, b'{', b'}'];
        bytes.extend([0x82, 4, STDOUT, 1, 2, 3]);
        bytes.extend([0x82, 126, 1, 1, STDOUT]);
        bytes.extend([7; 256]);
        bytes.extend([0x82, 3, 2, 9, 9]);
        bytes.extend([0x82, 2, EXIT, 42]);
        let ended = read_frames(&mut bytes.as_slice()).expect("the frames are whole");
        assert_eq!(
            ended,
            Ended {
                status: 42,
                stdout: 259
            }
        );
    }

    #[test]
    fn a_stream_without_an_exit_status_is_an_error() {
        assert!(read_frames(&mut [0x88, 0].as_slice()).is_err());
        assert!(read_frames(&mut [0x82, 5, STDOUT].as_slice()).is_err());
    }

    #[test]
    fn words_are_encoded_for_a_query() {
        assert_eq!(encode("a b&c=+/ü"), "a%20b%26c%3D%2B%2F%C3%BC");
    }
}
