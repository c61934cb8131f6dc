//! A real terminal.

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::process::Stdio;
use std::sync::mpsc;
use std::time::Duration;

use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{LocalModes, Winsize, tcgetattr, tcsetwinsize};
use tokio::process::{Child, Command};

use super::Home;

/// A terminal with a program on it.
pub struct Terminal {
    pub keys: File,
    /// Held open, so that the terminal's settings can be read after the program.
    pub inner: OwnedFd,
    shown: mpsc::Receiver<Vec<u8>>,
    pub screen: Vec<u8>,
}

impl Terminal {
    pub fn open(rows: u16, cols: u16) -> Self {
        let outer = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).expect("a terminal");
        grantpt(&outer).expect("ours");
        unlockpt(&outer).expect("ours");
        let name = ptsname(&outer, Vec::new()).expect("a name");
        let name = name.to_str().expect("ASCII").to_owned();
        let inner = File::options()
            .read(true)
            .write(true)
            .open(name)
            .expect("the other side");
        let mut screen = File::from(outer.try_clone().expect("a copy"));
        let (sender, shown) = mpsc::channel();
        std::thread::spawn(move || {
            let mut buffer = [0; 4096];
            while let Ok(len @ 1..) = screen.read(&mut buffer) {
                if sender.send(buffer[..len].to_vec()).is_err() {
                    return;
                }
            }
        });
        let terminal = Self {
            keys: File::from(outer),
            inner: inner.into(),
            shown,
            screen: Vec::new(),
        };
        terminal.resize(rows, cols);
        terminal
    }

    pub fn resize(&self, rows: u16, cols: u16) {
        let size = Winsize {
            ws_row: rows,
            ws_col: cols,
            ws_xpixel: 0,
            ws_ypixel: 0,
        };
        tcsetwinsize(&self.keys, size).expect("a terminal");
    }

    fn stdio(&self) -> Stdio {
        self.inner.try_clone().expect("a copy").into()
    }

    /// Starts the program with this as its controlling terminal.
    pub fn spawn(&self, home: &Home, args: &[&str]) -> Child {
        let mut command = Command::new("setsid");
        home.prepare(&mut command);
        command
            .arg("--ctty")
            .arg("--wait")
            .arg(env!("CARGO_BIN_EXE_sprite"))
            .args(args);
        command
            .env("TERM", "xterm-256color")
            .env("SHELL", "/usr/bin/zsh")
            .env("COLORTERM", "truecolor");
        command
            .stdin(self.stdio())
            .stdout(self.stdio())
            .stderr(self.stdio());
        command.spawn().expect("setsid is there")
    }

    pub fn type_in(&mut self, keys: &[u8]) {
        self.keys.write_all(keys).expect("a terminal");
    }

    /// Waits until the screen holds `text`.
    pub fn wait_for(&mut self, text: &str) {
        while !String::from_utf8_lossy(&self.screen).contains(text) {
            match self.shown.recv_timeout(Duration::from_secs(20)) {
                Ok(bytes) => self.screen.extend_from_slice(&bytes),
                Err(_) => panic!(
                    "{text:?} is not on {:?}",
                    String::from_utf8_lossy(&self.screen)
                ),
            }
        }
    }

    pub fn is_raw(&self) -> bool {
        let settings = tcgetattr(&self.inner).expect("a terminal");
        !settings.local_modes.contains(LocalModes::ICANON)
            && !settings.local_modes.contains(LocalModes::ECHO)
    }
}

/// Waits for the end of the program: its exit code.
pub async fn ended(mut child: Child) -> i32 {
    let ended = tokio::time::timeout(Duration::from_secs(20), child.wait())
        .await
        .expect("it ends");
    ended.expect("it ended").code().expect("it exited")
}
