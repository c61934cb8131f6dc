//! The smallest client of the public API: what is measured is the server, not an SDK.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
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
        let mut query = String::from("stdin=false");
        for word in words {
            query.push_str("&cmd=");
            query.push_str(&encode(word));
        }
        let mut stream = self.connect()?;
        let head = format!(
            "GET /v1/sprites/{name}/exec?{query} HTTP/1.1\r\nHost: {}\r\nAuthorization: Bearer {}\r\n\
             Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
             Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n",
            self.address, self.token
        );
        let step = || Failure::io(format!("run {words:?} in {name}"));
        stream.write_all(head.as_bytes()).map_err(step())?;
        let mut reader = BufReader::with_capacity(BUFFER, stream.try_clone().map_err(step())?);
        let (status, _) = read_head(&mut reader).map_err(step())?;
        if status != 101 {
            let mut text = String::new();
            // Whatever came of the body explains the refusal.
            let _ = reader.take(4096).read_to_string(&mut text);
            return Err(Failure::Check(format!(
                "exec in {name} was answered with {status}: {text}"
            )));
        }
        let ended = read_frames(&mut reader).map_err(step())?;
        // A masked, empty close, as a client ends; the server may be gone already.
        let _ = stream.write_all(&[0x80 | OPCODE_CLOSE, 0x80, 0, 0, 0, 0]);
        Ok(ended)
    }

    fn connect(&self) -> Outcome<TcpStream> {
        let step = || Failure::io(format!("connect to {}", self.address));
        let stream = TcpStream::connect(&self.address).map_err(step())?;
        stream.set_nodelay(true).map_err(step())?;
        stream.set_read_timeout(Some(PATIENCE)).map_err(step())?;
        Ok(stream)
    }

    fn request(&self, method: &str, path: &str, body: &str, wanted: u16) -> Outcome {
        let mut stream = self.connect()?;
        let head = format!(
            "{method} {path} HTTP/1.1\r\nHost: {}\r\nAuthorization: Bearer {}\r\nConnection: close\r\n\
             Content-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
            self.address,
            self.token,
            body.len()
        );
        let step = || Failure::io(format!("{method} {path}"));
        stream.write_all(head.as_bytes()).map_err(step())?;
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
                "{method} {path} was answered with {status}: {text}"
            )))
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

/// Reads frames until the exit status, and drops their payload.
fn read_frames(reader: &mut impl BufRead) -> std::io::Result<Ended> {
    let mut stdout = 0;
    loop {
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
        match head[0] & 0x0f {
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
