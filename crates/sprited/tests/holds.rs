//! What keeps a sprite awake, and what lives on while it sleeps, on real machines.
//! Source: behaviour reference §4.1, §11.4.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod harness;

use std::time::Duration;

use harness::{Server, driver, eventually, ready, text};
use sprite_client::{Child, Sprite, Stdio};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::timeout;

/// Far beyond anything that is waited for: only so that a test that fails ends.
const LONG: Duration = Duration::from_secs(90);

/// Repeats every line that it reads, on a port and for whoever connects.
const ECHO: &str = r"use IO::Socket::IP; $| = 1;
    my $s = IO::Socket::IP->new(LocalHost => '127.0.0.1', LocalPort => 8000, Listen => 9) or die;
    print qq(listening\n);
    while (my $c = $s->accept) { next if fork; while (sysread($c, my $b, 65536)) { syswrite($c, $b) or exit } exit }";

async fn status(sprite: &Sprite) -> String {
    sprite.info().await.unwrap().status.to_string()
}

async fn until_asleep(sprite: &Sprite) {
    eventually(LONG, async || match status(sprite).await.as_str() {
        "warm" => Ok(()),
        other => Err(other.to_owned()),
    })
    .await;
}

/// Reads until that was said.
async fn until_said(child: &mut Child, wanted: &str) {
    let output = child.stdout.as_mut().unwrap();
    let (mut said, mut buffer) = (String::new(), [0; 4096]);
    while !said.contains(wanted) {
        let count = timeout(LONG, output.read(&mut buffer)).await;
        let count = count.unwrap_or_else(|_| panic!("only {said:?} was said"));
        let count = count.unwrap();
        assert_ne!(count, 0, "it ended after {said:?}");
        said.push_str(&String::from_utf8_lossy(&buffer[..count]));
    }
}

async fn say(child: &mut Child, text: &str) {
    let input = child.stdin.as_mut().unwrap();
    input.write_all(text.as_bytes()).await.unwrap();
    input.flush().await.unwrap();
}

#[tokio::test]
async fn connections_live_over_ten_sleeps_and_wake_it_when_something_is_sent() {
    if !ready() {
        return;
    }
    let server = Server::start(&[]);
    let sprite = server.sprite("sleeper").await;
    let mut serving = sprite
        .command("perl")
        .args(["-e", ECHO])
        .stdin(Stdio::Null)
        .spawn()
        .await
        .unwrap();
    until_said(&mut serving, "listening").await;
    let mut connection = sprite.connect("localhost", 8000).await.unwrap();
    let mut command = sprite
        .command("cat")
        .stdin(Stdio::Piped)
        .spawn()
        .await
        .unwrap();
    for round in 0..10 {
        sprite.sleep().await.unwrap();
        assert_eq!(status(&sprite).await, "warm", "round {round}");
        let line = format!("round {round}\n");
        let mut back = vec![0; line.len()];
        // Now the one, now the other wakes it.
        if round % 2 == 0 {
            connection.write_all(line.as_bytes()).await.unwrap();
            let read = connection.read_exact(&mut back);
            timeout(LONG, read).await.expect("it comes back").unwrap();
            assert_eq!(back, line.as_bytes());
        } else {
            say(&mut command, &line).await;
            until_said(&mut command, &line).await;
        }
    }
    drop(command.stdin.take());
    let ended = timeout(LONG, command.wait()).await.unwrap().unwrap();
    assert!(ended.success(), "{ended:?}");
    server.finish();
}

#[tokio::test]
async fn a_command_that_is_silent_holds_and_a_quiet_terminal_does_not() {
    if !ready() {
        return;
    }
    let server = Server::start(&["--idle-timeout", "2s"]);
    let sprite = server.sprite("quiet").await;
    let silent = sprite.command("sleep").arg("1000").spawn().await.unwrap();
    let mut terminal = sprite.command("bash").tty(24, 80).spawn().await.unwrap();
    // What it says, and not what is typed.
    say(&mut terminal, "echo $((40+2))done\n").await;
    until_said(&mut terminal, "42done").await;
    tokio::time::sleep(Duration::from_secs(5)).await;
    assert_eq!(status(&sprite).await, "running", "a silent command holds");
    drop(silent);

    until_asleep(&sprite).await;
    say(&mut terminal, "echo $((50+2))done\n").await;
    until_said(&mut terminal, "52done").await;

    // At work, and as silent as before.
    say(&mut terminal, "sh -c 'sleep 8; echo $((60+2))done'\n").await;
    tokio::time::sleep(Duration::from_secs(6)).await;
    assert_eq!(
        status(&sprite).await,
        "running",
        "a silent make is no idleness"
    );
    until_said(&mut terminal, "62done").await;
    until_asleep(&sprite).await;
    server.finish();
}

/// What was written without an fsync is there when the memory is dropped: the disk alone holds all of it.
#[tokio::test]
async fn what_was_written_before_a_sleep_is_on_the_disk_alone() {
    if !ready() {
        return;
    }
    let server = Server::start(&[]);
    let sprite = server.sprite("writer").await;
    let written = text(
        &sprite,
        "head -c 20000000 /dev/urandom > file; sha256sum < file",
    )
    .await;
    sprite.sleep().await.unwrap();
    // A person's request drops the memory.
    sprite.restart().await.unwrap();
    assert_eq!(text(&sprite, "sha256sum < file").await, written);
    server.finish();
}

#[tokio::test]
async fn a_task_refuses_a_request_to_sleep() {
    if !ready() || driver() != "container" {
        return;
    }
    let server = Server::start(&[]);
    let sprite = server.sprite("busy").await;
    text(&sprite, "sprite-env tasks create build --expire 10m").await;
    let refused = sprite.sleep().await.unwrap_err();
    assert!(refused.to_string().contains("task"), "{refused}");
    assert_eq!(status(&sprite).await, "running");
    text(&sprite, "sprite-env tasks delete build").await;
    sprite.sleep().await.unwrap();
    assert_eq!(status(&sprite).await, "warm");
    server.finish();
}

#[tokio::test]
async fn an_alarm_set_inside_wakes_a_sprite_and_what_waited_there_goes_on() {
    if !ready() {
        return;
    }
    let server = Server::start(&["--idle-timeout", "2s"]);
    let sprite = server.sprite("early").await;
    // Long enough to fall asleep before.
    let alarm = if driver() == "container" { "8s" } else { "60s" };
    // It notes the seconds in which it is awake.
    let script = format!(
        "sprite-env wake in {alarm}; \
         setsid sh -c 'while :; do date +%s >> /tmp/awake; sleep 1; done' < /dev/null > /dev/null 2>&1 & \
         until [ -s /tmp/awake ]; do sleep 0.1; done"
    );
    text(&sprite, &script).await;
    sprite.sleep().await.unwrap();
    assert_eq!(status(&sprite).await, "warm");
    // Nobody asks for it.
    eventually(LONG, async || match status(&sprite).await.as_str() {
        "running" => Ok(()),
        other => Err(other.to_owned()),
    })
    .await;
    until_asleep(&sprite).await;
    let gap = "perl -ne 'chomp; print qq(slept\\n) if $l && $_ > $l + 2; $l = $_' /tmp/awake";
    let told = text(
        &sprite,
        &format!("{gap}; cat /tmp/awake; sprite-env wake list"),
    )
    .await;
    assert!(told.contains("slept"), "its seconds have no gap: {told}");
    assert!(told.contains(r#""alarms":[]"#), "it rings once: {told}");
    server.finish();
}

/// A computer beyond the host, in a network namespace of its own, and a program there that takes one connection: lines
/// go from its input to whoever connected, and from there to its output.
struct Beyond {
    name: String,
    link: String,
    program: std::process::Child,
    said: std::io::Lines<std::io::BufReader<std::process::ChildStdout>>,
}

/// A documentation network, which machines may reach.
const BEYOND: &str = "198.51.100.202";

/// What it was told is acknowledged (`TCP_QUICKACK`) before it says so: an acknowledgement that came later would wake.
const PROGRAM: &str = r"use IO::Socket::IP; use IO::Select; $| = 1;
    my $l = IO::Socket::IP->new(LocalHost => '0.0.0.0', LocalPort => 7000, Listen => 1) or die;
    print qq(listening\n); my $c = $l->accept; $c->autoflush(1); print qq(connected\n);
    my $s = IO::Select->new(\*STDIN, $c);
    while (1) { for my $h ($s->can_read) { my $n = sysread($h, my $b, 4096); $n or exit;
        if ($h != $c) { syswrite($c, $b); next }
        setsockopt($c, 6, 12, 1); syswrite(STDOUT, $b) } }";

impl Beyond {
    fn new() -> Self {
        let id = std::process::id();
        let (name, link) = (format!("beyond-{id}"), format!("bey{id}"));
        let run = |line: &str| {
            let words: Vec<&str> = line.split(' ').collect();
            let done = std::process::Command::new("ip").args(&words).status();
            assert!(done.unwrap().success(), "ip {line}");
        };
        run(&format!("netns add {name}"));
        run(&format!(
            "link add {link} type veth peer name eth0 netns {name}"
        ));
        run(&format!("addr add 198.51.100.201/30 dev {link}"));
        run(&format!("link set {link} up"));
        run(&format!("-n {name} addr add {BEYOND}/30 dev eth0"));
        run(&format!("-n {name} link set eth0 up"));
        run(&format!("-n {name} route add default via 198.51.100.201"));
        let mut program = std::process::Command::new("ip")
            .args(["netns", "exec", &name, "perl", "-e", PROGRAM])
            .stdin(std::process::Stdio::piped())
            .stdout(std::process::Stdio::piped())
            .spawn()
            .unwrap();
        let stdout = std::io::BufReader::new(program.stdout.take().unwrap());
        let said = std::io::BufRead::lines(stdout);
        let mut beyond = Self {
            name,
            link,
            program,
            said,
        };
        assert_eq!(beyond.hears(), "listening");
        beyond
    }

    fn says(&mut self, line: &str) {
        let input = self.program.stdin.as_mut().unwrap();
        std::io::Write::write_all(input, format!("{line}\n").as_bytes()).unwrap();
    }

    /// The next line; the test's own limit ends a wait for one that never comes.
    fn hears(&mut self) -> String {
        self.said.next().expect("it goes on").unwrap()
    }
}

impl Drop for Beyond {
    fn drop(&mut self) {
        let _ = self.program.kill();
        let _ = self.program.wait();
        for words in [["link", "del", &self.link], ["netns", "del", &self.name]] {
            let _ = std::process::Command::new("ip").args(words).status();
        }
    }
}

/// The other end knows nothing of sleep: it only speaks.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn connections_to_the_outside_live_over_sleeps_and_what_comes_on_one_wakes_it() {
    if !ready() {
        return;
    }
    if std::process::Command::new("ip").arg("-V").output().is_err() {
        return eprintln!("skipped: needs the program ip (iproute2)");
    }
    let mut beyond = Beyond::new();
    let mut server = Server::start(&[]);
    let mut sprite = server.sprite("caller").await;
    let client = format!(
        "exec 3<>/dev/tcp/{BEYOND}/7000; while read -r line <&3; do echo \"heard $line\" >&3; done"
    );
    let script = format!("setsid bash -c '{client}' < /dev/null > /dev/null 2>&1 &");
    text(&sprite, &script).await;
    assert_eq!(tokio::task::block_in_place(|| beyond.hears()), "connected");
    for round in 0..4 {
        sprite.sleep().await.unwrap();
        assert_eq!(status(&sprite).await, "warm", "round {round}");
        if round == 2 {
            // Another server takes over who sleeps, and listens for it.
            server.kill();
            server.restart();
            sprite = server.client().sprite("caller");
            assert_eq!(status(&sprite).await, "warm", "as it was");
        }
        beyond.says(&format!("round {round}"));
        let heard = tokio::task::block_in_place(|| beyond.hears());
        assert_eq!(heard, format!("heard round {round}"));
        assert_eq!(status(&sprite).await, "running", "round {round}");
    }
    server.finish();
}
