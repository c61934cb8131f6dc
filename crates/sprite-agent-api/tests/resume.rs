//! Streams go on without a byte lost or repeated, wherever their transport breaks.
#![expect(clippy::unwrap_used, reason = "a test says what it expects by failing")]

use std::io;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use proptest::prelude::*;
use sprite_agent_api::link::{
    self, Acceptor, BoxedTransport, Connect, Epoch, Limits, LinkError, Stream, StreamId,
};
use sprite_agent_api::{Frame, FrameKind};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

/// How many bytes each transport carries, host → agent and agent → host, before it breaks.
type Cuts = Vec<(usize, usize)>;

/// Connects to an acceptor in this process, over transports that break where the test says.
struct Breaking {
    acceptor: Arc<Acceptor>,
    cuts: Mutex<std::vec::IntoIter<(usize, usize)>>,
}

impl Breaking {
    fn new(acceptor: Arc<Acceptor>, cuts: Cuts) -> Arc<Self> {
        Arc::new(Self {
            acceptor,
            cuts: Mutex::new(cuts.into_iter()),
        })
    }
}

#[async_trait]
impl Connect for Breaking {
    async fn connect(&self) -> io::Result<BoxedTransport> {
        let (there, back) = self
            .cuts
            .lock()
            .unwrap()
            .next()
            .unwrap_or((usize::MAX, usize::MAX));
        let (host, host_far) = tokio::io::duplex(64);
        let (agent, agent_far) = tokio::io::duplex(64);
        let (host_read, host_write) = tokio::io::split(host_far);
        let (agent_read, agent_write) = tokio::io::split(agent_far);
        tokio::spawn(async move {
            tokio::select! {
                () = carry(host_read, agent_write, there) => {}
                () = carry(agent_read, host_write, back) => {}
            }
        });
        let acceptor = self.acceptor.clone();
        tokio::spawn(async move { acceptor.serve(Box::new(agent)).await });
        Ok(Box::new(host))
    }
}

/// Carries `limit` bytes, then returns, which drops both directions. Never returns on a clean end.
async fn carry(mut from: impl AsyncRead + Unpin, mut to: impl AsyncWrite + Unpin, limit: usize) {
    let mut left = limit;
    let mut buffer = [0; 64];
    while left > 0 {
        let most = left.min(buffer.len());
        match from.read(&mut buffer[..most]).await {
            Ok(0) | Err(_) => {
                let _ = to.shutdown().await;
                return std::future::pending().await;
            }
            Ok(n) => {
                if to.write_all(&buffer[..n]).await.is_err() {
                    return;
                }
                left -= n;
            }
        }
    }
}

/// An agent that sends everything back, and ends when its host does.
fn echo() -> Arc<Acceptor> {
    Acceptor::new(Limits::default(), |stream: Stream| {
        tokio::spawn(async move {
            let Stream {
                sender,
                mut receiver,
            } = stream;
            while let Ok(Some(frame)) = receiver.recv().await {
                if sender.send(frame).await.is_err() {
                    return;
                }
            }
            sender.finish();
        });
    })
}

fn frames(sizes: &[usize]) -> Vec<Frame> {
    let mut next = 0u8;
    sizes
        .iter()
        .map(|&size| {
            let payload: Bytes = (0..size)
                .map(|_| {
                    next = next.wrapping_mul(31).wrapping_add(7);
                    next
                })
                .collect();
            Frame::data(FrameKind::Stdout, payload)
        })
        .collect()
}

/// What comes back over a stream whose transports break at `cuts`.
async fn exchange(sizes: &[usize], cuts: Cuts) -> Result<Vec<Frame>, LinkError> {
    let Stream {
        sender,
        mut receiver,
    } = link::open(Breaking::new(echo(), cuts), Epoch(1), StreamId(7));
    let sending = frames(sizes);
    let send = tokio::spawn(async move {
        for frame in sending {
            sender.send(frame).await?;
        }
        sender.finish();
        Ok::<_, LinkError>(())
    });
    let mut got = Vec::new();
    while let Some(frame) = receiver.recv().await? {
        got.push(frame);
    }
    send.await.unwrap()?;
    Ok(got)
}

const SIZES: [usize; 6] = [1, 0, 13, 200, 3, 64];

#[tokio::test(start_paused = true)]
async fn a_transport_cut_at_any_byte_loses_and_repeats_nothing() {
    let most = 41 + SIZES.iter().map(|n| n + 5).sum::<usize>() + 5 + 20;
    for cut in 0..most {
        for cuts in [
            vec![(cut, usize::MAX)],
            vec![(usize::MAX, cut)],
            vec![(cut, cut), (cut, usize::MAX)],
        ] {
            let got =
                tokio::time::timeout(Duration::from_secs(100), exchange(&SIZES, cuts.clone()))
                    .await;
            assert_eq!(got.expect("ends"), Ok(frames(&SIZES)), "cut at {cuts:?}");
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]
    #[test]
    fn random_cuts_lose_and_repeat_nothing(
        sizes in prop::collection::vec(0usize..3000, 0..40),
        cuts in prop::collection::vec((40usize..9000, 17usize..9000), 0..4),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build().unwrap();
        let got = runtime.block_on(exchange(&sizes, cuts));
        prop_assert_eq!(got, Ok(frames(&sizes)));
    }
}

#[tokio::test(start_paused = true)]
async fn more_than_a_window_arrives_whole() {
    let sizes = [100_000; 60];
    let got = exchange(
        &sizes,
        vec![(3_000_000, usize::MAX), (usize::MAX, 2_500_000)],
    )
    .await;
    assert!(got == Ok(frames(&sizes)), "the frames differ");
}

#[tokio::test(start_paused = true)]
async fn a_reader_that_does_not_read_stops_the_sender_at_the_window() {
    let (tell, mut told) = tokio::sync::mpsc::unbounded_channel();
    let acceptor = Acceptor::new(Limits::default(), move |stream: Stream| {
        let tell = tell.clone();
        tokio::spawn(async move {
            let mut sent = 0;
            while stream
                .sender
                .send(Frame::data(FrameKind::Stdout, Bytes::from(vec![0; 65536])))
                .await
                .is_ok()
            {
                sent += 65536;
                tell.send(sent).unwrap();
            }
        });
    });
    let stream = link::open(Breaking::new(acceptor, Vec::new()), Epoch(1), StreamId(1));
    let mut most = 0;
    while let Ok(Some(sent)) = tokio::time::timeout(Duration::from_secs(5), told.recv()).await {
        most = sent;
    }
    assert!(
        most <= link::WINDOW + 65536,
        "{most} bytes were queued for a reader that never read"
    );
    drop(stream);
}

#[tokio::test(start_paused = true)]
async fn a_new_epoch_ends_the_streams_of_the_old_one() {
    let (tell, mut told) = tokio::sync::mpsc::unbounded_channel();
    let acceptor = Acceptor::new(Limits::default(), move |mut stream: Stream| {
        let tell = tell.clone();
        tokio::spawn(async move {
            let ended = loop {
                match stream.receiver.recv().await {
                    Ok(Some(_)) => {}
                    other => break other,
                }
            };
            tell.send(ended).unwrap();
            drop(stream);
        });
    });
    let old = link::open(
        Breaking::new(acceptor.clone(), Vec::new()),
        Epoch(1),
        StreamId(1),
    );
    old.sender
        .send(Frame::data(FrameKind::Stdin, Bytes::from_static(b"x")))
        .await
        .unwrap();
    tokio::time::sleep(Duration::from_secs(1)).await;
    let new = link::open(Breaking::new(acceptor, Vec::new()), Epoch(2), StreamId(2));
    assert!(matches!(
        told.recv().await.unwrap(),
        Err(LinkError::Gone(_))
    ));
    drop((old, new));
}

#[tokio::test(start_paused = true)]
async fn dropping_the_stream_tells_the_agent() {
    let (tell, mut told) = tokio::sync::mpsc::unbounded_channel();
    let acceptor = Acceptor::new(Limits::default(), move |mut stream: Stream| {
        let tell = tell.clone();
        tokio::spawn(async move {
            let ended = stream.receiver.recv().await;
            tell.send(ended).unwrap();
            drop(stream);
        });
    });
    let stream = link::open(Breaking::new(acceptor, Vec::new()), Epoch(1), StreamId(1));
    tokio::time::sleep(Duration::from_secs(1)).await;
    drop(stream);
    assert_eq!(told.recv().await.unwrap(), Err(LinkError::Aborted));
}

#[tokio::test(start_paused = true)]
async fn an_agent_that_cannot_be_reached_ends_the_stream() {
    struct Nobody;
    #[async_trait]
    impl Connect for Nobody {
        async fn connect(&self) -> io::Result<BoxedTransport> {
            Err(io::ErrorKind::ConnectionRefused.into())
        }
    }
    let mut stream = link::open(Arc::new(Nobody), Epoch(1), StreamId(1));
    assert!(matches!(
        stream.receiver.recv().await,
        Err(LinkError::Gone(_))
    ));
}

#[tokio::test(start_paused = true)]
async fn bytes_that_are_no_protocol_are_refused_without_a_panic() {
    let acceptor = echo();
    for garbage in [&b""[..], b"GET / HTTP/1.1\r\n\r\n", &[0xff; 100]] {
        let (mut host, agent) = tokio::io::duplex(4096);
        let serve = tokio::spawn({
            let acceptor = acceptor.clone();
            async move { acceptor.serve(Box::new(agent)).await }
        });
        host.write_all(garbage).await.unwrap();
        let mut rest = Vec::new();
        let _ = host.shutdown().await;
        host.read_to_end(&mut rest).await.unwrap();
        serve.await.unwrap();
        assert!(rest.is_empty());
    }
}
