//! A monitor's process, and what it is asked on its control socket.

use std::fs::{self, File};
use std::io::{BufRead, BufReader, ErrorKind, Read, Write};
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::inotify::{self, CreateFlags, WatchFlags};
use serde_json::{Value, json};

use crate::failure::{Failure, Outcome, io_failure};

/// Far beyond anything that is waited for, also in an emulator: only so that what hangs ends.
pub(crate) const PATIENCE: Duration = Duration::from_secs(180);

const SOCKET: &str = "api";

/// A monitor that listens. Dropping it ends it.
pub(crate) struct Monitor {
    child: Child,
    socket: BufReader<UnixStream>,
}

/// Where a monitor's socket will be, watched. To end watching takes the kernel longer than a monitor's start: nobody
/// does that while time is taken.
pub(crate) struct Place {
    directory: PathBuf,
    socket: PathBuf,
    news: OwnedFd,
}

impl Place {
    /// Clears the directory's socket away and begins to watch.
    pub(crate) fn watch(directory: &Path) -> Outcome<Self> {
        let socket = directory.join(SOCKET);
        match fs::remove_file(&socket) {
            Err(error) if error.kind() != ErrorKind::NotFound => {
                return Err(io_failure(format!("remove {}", socket.display()))(error));
            }
            Ok(()) | Err(_) => {}
        }
        let watch = || {
            let news = inotify::init(CreateFlags::CLOEXEC)?;
            inotify::add_watch(&news, directory, WatchFlags::CREATE | WatchFlags::MOVED_TO)?;
            Ok(news)
        };
        Ok(Self {
            directory: directory.to_owned(),
            socket,
            news: watch().map_err(|error: rustix::io::Errno| {
                io_failure("watch for a socket")(error.into())
            })?,
        })
    }

    /// Starts a monitor, whose guest prints to `console`, and returns when its socket takes a connection.
    pub(crate) fn start(&self, program: &Path, console: Stdio) -> Outcome<Monitor> {
        let errors = self.directory.join("errors");
        let errors = File::create(&errors).map_err(io_failure("make the monitor's log"))?;
        let child = Command::new(program)
            .arg("--api-sock")
            .arg(&self.socket)
            .args(["--id", "bench"])
            .stdin(Stdio::null())
            .stdout(console)
            .stderr(errors)
            .spawn()
            .map_err(io_failure(format!("start {}", program.display())))?;
        // From here on whatever fails ends it.
        let child = Guard(Some(child));
        let stream = self.connect()?;
        stream
            .set_read_timeout(Some(PATIENCE))
            .map_err(io_failure("set the socket's patience"))?;
        Ok(Monitor {
            child: child.keep(),
            socket: BufReader::new(stream),
        })
    }

    fn connect(&self) -> Outcome<UnixStream> {
        loop {
            match UnixStream::connect(&self.socket) {
                Ok(stream) => return Ok(stream),
                // The name is there a moment before the socket listens.
                Err(error) if error.kind() == ErrorKind::ConnectionRefused => {
                    std::thread::yield_now();
                }
                Err(error) if error.kind() == ErrorKind::NotFound => self.wait()?,
                Err(error) => return Err(io_failure("connect to the monitor")(error)),
            }
        }
    }

    /// Waits for the next new name in the directory.
    fn wait(&self) -> Outcome {
        let step = |error: rustix::io::Errno| io_failure("wait for the monitor")(error.into());
        let patience = Timespec::try_from(PATIENCE).expect("three minutes are a time");
        let ready = poll(
            &mut [PollFd::new(&self.news, PollFlags::IN)],
            Some(&patience),
        );
        if ready.map_err(step)? == 0 {
            return Err(Failure::Check("the monitor makes no socket".to_owned()));
        }
        let mut buffer = [MaybeUninit::uninit(); 1024];
        let mut reader = inotify::Reader::new(&self.news, &mut buffer);
        reader.next().map(drop).map_err(step)
    }
}

/// Ends a process unless it is kept.
struct Guard(Option<Child>);

impl Guard {
    fn keep(mut self) -> Child {
        self.0.take().expect("it is taken once")
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        if let Some(child) = &mut self.0 {
            end(child);
        }
    }
}

fn end(child: &mut Child) {
    // It may have ended by itself.
    let _ = child.kill();
    let _ = child.wait();
}

impl Drop for Monitor {
    fn drop(&mut self) {
        end(&mut self.child);
    }
}

impl Monitor {
    /// Its process.
    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// What the guest prints, if that is a pipe.
    pub(crate) fn take_console(&mut self) -> Outcome<impl BufRead + use<>> {
        let console = self.child.stdout.take();
        console
            .map(BufReader::new)
            .ok_or_else(|| Failure::Check("the guest's console is not ours".to_owned()))
    }

    pub(crate) fn put(&mut self, path: &str, body: &Value) -> Outcome {
        self.ask("PUT", path, body)
    }

    pub(crate) fn pause(&mut self) -> Outcome {
        self.ask("PATCH", "/vm", &json!({ "state": "Paused" }))
    }

    pub(crate) fn resume(&mut self) -> Outcome {
        self.ask("PATCH", "/vm", &json!({ "state": "Resumed" }))
    }

    /// Asks for what must be done.
    fn ask(&mut self, method: &str, path: &str, body: &Value) -> Outcome {
        let body = body.to_string();
        let request = format!(
            "{method} {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n\
             Content-Length: {}\r\n\r\n{body}",
            body.len()
        );
        let answer = self
            .socket
            .get_mut()
            .write_all(request.as_bytes())
            .and_then(|()| read_answer(&mut self.socket));
        match answer {
            Ok((200..300, _)) => Ok(()),
            Ok((status, text)) => Err(Failure::Check(format!(
                "{method} {path} was answered with {status}: {text}"
            ))),
            Err(error) => Err(io_failure(format!("{method} {path}"))(error)),
        }
    }
}

/// Status and body of an answer.
fn read_answer(from: &mut impl BufRead) -> std::io::Result<(u16, String)> {
    let bad = || std::io::Error::new(ErrorKind::InvalidData, "the answer is none");
    let mut line = String::new();
    from.read_line(&mut line)?;
    let status = line.split(' ').nth(1).and_then(|word| word.parse().ok());
    let status = status.ok_or_else(bad)?;
    let mut length = 0;
    loop {
        line.clear();
        from.read_line(&mut line)?;
        let header = line.trim();
        if header.is_empty() {
            break;
        }
        if let Some((name, value)) = header.split_once(':')
            && name.eq_ignore_ascii_case("content-length")
        {
            length = value.trim().parse().map_err(|_| bad())?;
        }
    }
    let mut body = String::new();
    from.take(length).read_to_string(&mut body)?;
    Ok((status, body))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_ends_where_its_length_says() {
        let mut bytes =
            &b"HTTP/1.1 400 Bad\r\ncontent-length: 2\r\n\r\n{}HTTP/1.1 204 \r\n\r\n"[..];
        let mut next = || read_answer(&mut bytes).expect("an answer");
        assert_eq!(next(), (400, "{}".to_owned()));
        assert_eq!(next(), (204, String::new()));
        assert!(read_answer(&mut &b""[..]).is_err());
    }
}
