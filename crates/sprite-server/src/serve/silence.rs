//! Peers that went without a word: a computer that lost its power, its network or its way to us.
//!
//! The kernel alone tells of them too late or too early. Its keepalive rests while sent bytes wait for their
//! acknowledgement; then it goes on for a quarter of an hour. `TCP_USER_TIMEOUT` would end that, and with it every
//! client that is there and does not read for a while, such as one whose output is looked at page by page:
//! its system says "no room" again and again, and that is an answer. So we ask the kernel whether the peer's
//! system has answered at all.

use std::io;
use std::os::fd::AsRawFd;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use rustix::net::{Shutdown, sockopt};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::{Interval, MissedTickBehavior};

/// Into how many parts the limit is divided: keepalive asks after four of them, then after each one, and so
/// has asked twice when the limit is over. We look as often.
const PARTS: u32 = 6;
const ASKED: u8 = 2;

/// The least that the kernel can count.
const LEAST: Duration = Duration::from_secs(1);

/// A connection that breaks with `TimedOut` once its peer left everything unanswered for too long. Whoever waits
/// for it to read or to take bytes is told then.
#[derive(Debug)]
pub(crate) struct Heard {
    tcp: TcpStream,
    limit: Duration,
    look: Interval,
}

impl Heard {
    /// Watches a connection. Must be called within a runtime.
    pub(crate) fn new(tcp: TcpStream, limit: Duration) -> Self {
        let part = (limit / PARTS).max(LEAST);
        // Each of these is a gain, none a need.
        let _ = sockopt::set_socket_keepalive(&tcp, true);
        let _ = sockopt::set_tcp_keepidle(&tcp, part * (PARTS - u32::from(ASKED)));
        let _ = sockopt::set_tcp_keepintvl(&tcp, part);
        let _ = sockopt::set_tcp_keepcnt(&tcp, ASKED.into());
        let mut look = tokio::time::interval(part);
        look.set_missed_tick_behavior(MissedTickBehavior::Delay);
        Self { tcp, limit, look }
    }

    /// Called whenever the caller is about to wait: it is woken for the next look.
    fn look(&mut self, cx: &mut Context<'_>) -> io::Result<()> {
        while self.look.poll_tick(cx).is_ready() {
            if is_silent(&self.tcp, self.limit)? {
                // Whoever waits for the other direction is told as well. What is gone cannot be shut.
                let _ = rustix::net::shutdown(&self.tcp, Shutdown::Both);
                return Err(io::ErrorKind::TimedOut.into());
            }
        }
        Ok(())
    }

    /// A result that is there, or a look at the peer while there is none.
    fn or_look<T>(
        &mut self,
        cx: &mut Context<'_>,
        done: Poll<io::Result<T>>,
    ) -> Poll<io::Result<T>> {
        match done {
            Poll::Ready(done) => Poll::Ready(done),
            Poll::Pending => match self.look(cx) {
                Ok(()) => Poll::Pending,
                Err(silent) => Poll::Ready(Err(silent)),
            },
        }
    }
}

/// Whether the peer's system was asked, by bytes or by a probe, and has said nothing for that long.
fn is_silent(tcp: &TcpStream, limit: Duration) -> io::Result<bool> {
    let info = tcp_info(tcp)?;
    let asked = info.tcpi_retransmits.max(info.tcpi_probes);
    let heard_ago = Duration::from_millis(info.tcpi_last_ack_recv.into());
    Ok(asked >= ASKED && heard_ago >= limit)
}

/// Source: tcp(7), `TCP_INFO`.
fn tcp_info(tcp: &TcpStream) -> io::Result<libc::tcp_info> {
    // SAFETY: the structure holds numbers alone, and all of them may be zero.
    let mut info: libc::tcp_info = unsafe { std::mem::zeroed() };
    let mut size = libc::socklen_t::try_from(size_of_val(&info)).map_err(io::Error::other)?;
    // SAFETY: the descriptor is open as long as `tcp` lives; the kernel writes at most `size` bytes to `info`.
    let done = unsafe {
        libc::getsockopt(
            tcp.as_raw_fd(),
            libc::IPPROTO_TCP,
            libc::TCP_INFO,
            std::ptr::from_mut(&mut info).cast(),
            &raw mut size,
        )
    };
    if done < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(info)
}

impl AsyncRead for Heard {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let done = Pin::new(&mut self.tcp).poll_read(cx, buf);
        self.or_look(cx, done)
    }
}

impl AsyncWrite for Heard {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        let done = Pin::new(&mut self.tcp).poll_write(cx, buf);
        self.or_look(cx, done)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let done = Pin::new(&mut self.tcp).poll_write_vectored(cx, bufs);
        self.or_look(cx, done)
    }

    fn is_write_vectored(&self) -> bool {
        self.tcp.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.tcp).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.tcp).poll_shutdown(cx)
    }
}
