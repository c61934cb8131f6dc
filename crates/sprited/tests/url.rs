//! Sprites' URLs of a real server: a web server in a sprite, asked from outside.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod harness;

use std::time::Duration;

use sprite_client::{Sprite, Status, UrlSettings};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use harness::{Server, eventually, patiently, ready};

const LONG: Duration = Duration::from_secs(120);

/// A web server that says what it was asked, and keeps what it has counted in its memory alone.
const WEB: &str = r#"use IO::Socket::INET; my $n = 0;
my $s = IO::Socket::INET->new(LocalAddr => '0.0.0.0:8080', Listen => 50, ReuseAddr => 1) or die;
while (my $c = $s->accept) {
  my $h = ''; while (my $l = <$c>) { last if $l =~ /^\r?\n$/; $h .= $l }
  $n++; my $b = "n=$n\n$h";
  print $c "HTTP/1.1 200 OK\r\nContent-Length: " . length($b) . "\r\nConnection: close\r\n\r\n$b";
  close $c }"#;

/// Starts the web server in a sprite; it lives on without its session.
async fn serve(sprite: &Sprite) {
    let script = format!(
        "setsid perl -e '{}' >/dev/null 2>&1 </dev/null &",
        WEB.replace('\'', "'\\''")
    );
    let ran = patiently(sprite, &script).await.unwrap();
    assert!(ran.status.success());
}

/// Asks for a sprite's URL; the status and all that was said.
async fn get(server: &Server, host: &str, headers: &str) -> (u16, String) {
    let address = server.url();
    let address = address.strip_prefix("http://").unwrap();
    let asked = async {
        let mut tcp = TcpStream::connect(address).await.unwrap();
        let request =
            format!("GET /page HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n{headers}\r\n");
        tcp.write_all(request.as_bytes()).await.unwrap();
        let mut said = String::new();
        tcp.read_to_string(&mut said).await.unwrap();
        said
    };
    let said = timeout(LONG, asked).await.expect("an answer");
    let status = said.split(' ').nth(1).unwrap().parse().unwrap();
    (status, said)
}

async fn host_of(sprite: &Sprite) -> String {
    let url = sprite.info().await.unwrap().url.unwrap();
    url.strip_prefix("http://").unwrap().to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_web_server_answers_at_the_sprites_url_also_from_sleep() {
    if !ready() {
        return;
    }
    let mut server = Server::start(&["--idle-timeout", "1s"]);
    let sprite = server.sprite("web").await;
    let host = host_of(&sprite).await;
    let token = format!("Authorization: Bearer {}\r\n", server.token());
    let (status, said) = get(&server, &host, &token).await;
    assert_eq!(status, 502, "{said}");
    serve(&sprite).await;
    eventually(LONG, async || match get(&server, &host, &token).await {
        (200, said) => {
            assert!(said.contains("GET /page HTTP/1.1"), "{said}");
            assert!(!said.to_lowercase().contains("authorization:"), "{said}");
            Ok(())
        }
        other => Err(format!("{other:?}")),
    })
    .await;
    assert_eq!(get(&server, &host, "").await.0, 401);
    let settings = UrlSettings {
        auth: Some("public".to_owned()),
        private_access: None,
    };
    sprite.update().url_settings(settings).send().await.unwrap();
    assert_eq!(get(&server, &host, "").await.0, 200);
    // Asleep, and what it has counted goes on.
    let before = count(&server, &host).await;
    for _ in 0..3 {
        eventually(LONG, async || match sprite.info().await.unwrap().status {
            Status::Warm => Ok(()),
            other => Err(format!("{other:?}")),
        })
        .await;
        get(&server, &host, "").await;
    }
    assert_eq!(count(&server, &host).await, before + 4);
    // The cookies of browsers survive a restart of the server: its key is the same.
    let key = std::fs::read(server.data_dir().join("url-key")).unwrap();
    server.kill();
    server.restart();
    assert_eq!(
        std::fs::read(server.data_dir().join("url-key")).unwrap(),
        key
    );
    assert_eq!(get(&server, &host, "").await.0, 200);
    server.finish();
}

/// Behaviour reference §4.3: the URL leads to the service that has it, which is there when a request comes.
#[tokio::test]
async fn a_service_has_the_url_and_is_started_for_it() {
    if !ready() {
        return;
    }
    let server = Server::start(&[]);
    let sprite = server.sprite("served").await;
    let open = UrlSettings {
        auth: Some("public".to_owned()),
        ..UrlSettings::default()
    };
    sprite.update().url_settings(open).send().await.unwrap();
    let host = host_of(&sprite).await;
    let (status, said) = get(&server, &host, "").await;
    assert_eq!(status, 502, "{said}");
    let script = format!(
        "cat > web.pl <<'END'\n{}\nEND",
        WEB.replace("0.0.0.0:8080", "0.0.0.0:3000")
    );
    assert!(patiently(&sprite, &script).await.unwrap().status.success());
    let service = sprite.put_service("web", "perl");
    let service = service.arg("/home/sprite/web.pl").http_port(3000);
    drop(service.send().await.unwrap());
    assert_eq!(count(&server, &host).await, 1);
    // A boot starts it anew, and whoever asks first waits for it.
    sprite.restart().await.unwrap();
    assert_eq!(count(&server, &host).await, 1);
    // A person's stop is not undone by a visitor.
    let stopped = sprite.stop_service("web", None).await;
    stopped.unwrap().finish().await.unwrap();
    assert_eq!(get(&server, &host, "").await.0, 502);
    server.finish();
}

async fn count(server: &Server, host: &str) -> u32 {
    let (status, said) = get(server, host, "").await;
    assert_eq!(status, 200, "{said}");
    let count = said.split("n=").nth(1).unwrap();
    count.split('\n').next().unwrap().parse().unwrap()
}

/// The next server takes over machines and sockets: sessions and memory go on, and whoever asks meanwhile waits.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_hands_over_to_the_next_and_nobody_is_refused() {
    if !ready() {
        return;
    }
    let mut server = Server::start_with_socket(&[]);
    let sprite = server.sprite("kept").await;
    let host = host_of(&sprite).await;
    let open = UrlSettings {
        auth: Some("public".to_owned()),
        ..UrlSettings::default()
    };
    sprite.update().url_settings(open).send().await.unwrap();
    serve(&sprite).await;
    eventually(LONG, async || match get(&server, &host, "").await {
        (200, _) => Ok(()),
        other => Err(format!("{other:?}")),
    })
    .await;
    let address = server.url().strip_prefix("http://").unwrap().to_owned();
    let done = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false));
    let asking = tokio::spawn({
        let done = done.clone();
        async move {
            let (mut answers, mut slowest) = (Vec::new(), Duration::ZERO);
            while !done.load(std::sync::atomic::Ordering::Relaxed) {
                let began = std::time::Instant::now();
                answers.push(ask_once(&address, &host).await);
                slowest = slowest.max(began.elapsed());
            }
            (answers, slowest)
        }
    });
    let machines = server.machines();
    for _ in 0..3 {
        server.hand_over();
        server.restart();
        assert_eq!(server.machines(), machines, "the machine is the same");
    }
    done.store(true, std::sync::atomic::Ordering::Relaxed);
    let (answers, slowest) = asking.await.unwrap();
    println!("{} answers, the slowest after {slowest:?}", answers.len());
    for (before, after) in answers.iter().zip(&answers[1..]) {
        assert!(after > before, "the same program goes on: {answers:?}");
    }
    let log = server.log();
    assert_eq!(log.matches("handing over").count(), 3, "{log}");
    server.finish();
}

/// What the web server has counted.
async fn ask_once(address: &str, host: &str) -> u64 {
    let asked = async {
        let mut tcp = TcpStream::connect(address).await.unwrap();
        let request = format!("GET / HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n");
        tcp.write_all(request.as_bytes()).await.unwrap();
        let mut said = String::new();
        tcp.read_to_string(&mut said).await.unwrap();
        said
    };
    let said = timeout(LONG, asked).await.expect("an answer");
    let count = said.split("n=").nth(1).and_then(|rest| rest.lines().next());
    count.and_then(|count| count.parse().ok()).expect(&said)
}

/// Who connects to a socket that nobody listens to would wait for ever.
#[tokio::test]
async fn a_socket_that_no_flag_names_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let socket = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = socket.local_addr().unwrap().to_string();
    let take = "exec 3<&0 </dev/null; LISTEN_FDS=1 LISTEN_PID=$$ exec \"$0\" \"$@\"";
    let refused = std::process::Command::new("sh")
        .args(["-c", take, env!("CARGO_BIN_EXE_sprited"), "serve"])
        .args([
            "--listen",
            "127.0.0.1:0",
            "--image",
            "minimal",
            "--data-dir",
        ])
        .arg(directory.path())
        .stdin(std::os::fd::OwnedFd::from(socket))
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&refused.stderr);
    assert!(!refused.status.success());
    assert!(said.contains(&format!("--listen {address}")), "{said}");
}
