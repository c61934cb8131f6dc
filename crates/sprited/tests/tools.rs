//! What people do first in a new computer: install things. On the default image, with the host's network.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod harness;

use std::path::Path;
use std::time::Duration;

use harness::{Server, ready};
use sprite_client::Sprite;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::process::Command;

/// Longest time that one installation may take: packages come from mirrors that others use as well.
const LIMIT: Duration = Duration::from_secs(180);

/// What is done, and what then works. Each is a script of its own, run by the user `sprite`.
const TOOLS: [(&str, &str); 5] = [
    (
        "sudo apt-get install",
        "sudo apt-get update -q && sudo apt-get install -y -q tree && tree --version",
    ),
    (
        "pip install in a virtual environment",
        "python3 -m venv v && v/bin/pip install -q six && v/bin/python -c 'import six; print(six.__version__)'",
    ),
    (
        "pip install",
        "pip install -q iniconfig && python3 -c 'import iniconfig; print(iniconfig.__file__)'",
    ),
    (
        "npm install in a project and for all",
        "mkdir p && cd p && npm init -y >/dev/null && npm install is-number && \
         node -e 'process.exit(require(\"is-number\")(5) ? 0 : 1)' && \
         npm install -g semver && semver 1.2.3 -r '^1.0.0'",
    ),
    // The host is closed to sprites, and no public server of repositories is anybody's to lean on: so the
    // server is inside as well, one that speaks HTTP and one that speaks git's own protocol.
    (
        "git clone",
        "set -e; git init -q --bare -b main served/r.git; git -c init.defaultBranch=main clone -q served/r.git work \
         2>/dev/null; cd work; echo hello > file; git add file; \
         git -c user.name=n -c user.email=e@example.com commit -qm first; git push -q origin HEAD:main; cd ..; \
         git -C served/r.git update-server-info; \
         python3 -m http.server -b 127.0.0.1 -d served 8123 >/dev/null 2>&1 & \
         git daemon --base-path=served --export-all --listen=127.0.0.1 --reuseaddr & \
         for port in 8123 9418; do until echo > /dev/tcp/127.0.0.1/$port; do sleep 0.05; done 2>/dev/null; done; \
         git clone -q http://127.0.0.1:8123/r.git by-http; git clone -q git://127.0.0.1/r.git by-git; \
         kill %1 %2; cat by-http/file by-git/file",
    ),
];

/// Takes minutes where the default image is not there yet, so only where it is asked for.
#[tokio::test]
async fn sprites_install_packages_of_every_kind() {
    if std::env::var_os("SPRITE_TEST_DEFAULT_IMAGE").is_none() {
        eprintln!("skipped: it takes minutes; set SPRITE_TEST_DEFAULT_IMAGE=1");
        return;
    }
    if !ready() {
        return;
    }
    let server = Server::start(&["--image", "default"]);
    let sprite = server.sprite("tools").await;
    for (what, script) in TOOLS {
        let output = run(&sprite, what, script).await;
        eprintln!("{what}: {}", output.trim_end());
    }
    server.finish();
}

/// A person's own SSH client, through `sprite proxy -W`, in one session over ten sleeps.
#[tokio::test]
async fn an_ssh_session_stays_open_over_ten_sleeps() {
    if std::env::var_os("SPRITE_TEST_DEFAULT_IMAGE").is_none() {
        eprintln!("skipped: it takes minutes; set SPRITE_TEST_DEFAULT_IMAGE=1");
        return;
    }
    let cli = Path::new(env!("CARGO_BIN_EXE_sprited")).with_file_name("sprite");
    if !cli.exists() || Command::new("ssh").arg("-V").output().await.is_err() {
        return eprintln!("skipped: needs ssh (openssh-client), and sprite beside sprited");
    }
    if !ready() {
        return;
    }
    let server = Server::start(&["--image", "default"]);
    let sprite = server.sprite("remote").await;
    let keys = tempfile::tempdir().unwrap();
    let key = keys.path().join("key");
    let mut keygen = Command::new("ssh-keygen");
    keygen
        .args(["-q", "-t", "ed25519", "-N", "", "-f"])
        .arg(&key);
    assert!(keygen.status().await.unwrap().success());
    let public = std::fs::read_to_string(key.with_extension("pub")).unwrap();
    let serve = format!(
        "sudo apt-get update -q && sudo apt-get install -y -q openssh-server && sudo mkdir -p /run/sshd && \
         mkdir -p -m 700 ~/.ssh && echo '{public}' > ~/.ssh/authorized_keys && \
         sudo /usr/sbin/sshd -o Port=2222 -o ListenAddress=127.0.0.1 -o UsePAM=no"
    );
    run(&sprite, "serve SSH", &serve).await;
    let proxy = format!("{} proxy -s remote -W localhost:2222", cli.display());
    let mut session = Command::new("ssh")
        .arg("-i")
        .arg(&key)
        .args(["-o", &format!("ProxyCommand={proxy}")])
        .args(["-o", "StrictHostKeyChecking=no", "-o", "BatchMode=yes"])
        .args(["-o", "UserKnownHostsFile=/dev/null", "-o", "LogLevel=ERROR"])
        .args(["sprite@remote", "hostname; exec cat"])
        .env("SPRITE_URL", server.url())
        .env("SPRITE_TOKEN", server.token())
        .env("HOME", keys.path())
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    let mut input = session.stdin.take().unwrap();
    let mut lines = BufReader::new(session.stdout.take().unwrap()).lines();
    let mut heard = async || {
        let line = tokio::time::timeout(LIMIT, lines.next_line()).await;
        line.expect("the session answers").unwrap()
    };
    assert_eq!(heard().await.as_deref(), Some("remote"));
    for round in 0..10 {
        sprite.sleep().await.unwrap();
        let line = format!("round {round}");
        input
            .write_all(format!("{line}\n").as_bytes())
            .await
            .unwrap();
        assert_eq!(heard().await, Some(line));
    }
    drop(input);
    assert!(session.wait().await.unwrap().success());
    server.finish();
}

/// Runs a script as a person's shell would; fails with all that it said.
async fn run(sprite: &Sprite, what: &str, script: &str) -> String {
    let command = sprite.command("bash").args(["-c", script]);
    let output = tokio::time::timeout(LIMIT, command.output()).await;
    let output = output.unwrap_or_else(|_| panic!("{what} takes more than {LIMIT:?}"));
    let output = output.unwrap();
    let (stdout, stderr) = (
        String::from_utf8_lossy(&output.stdout).into_owned(),
        String::from_utf8_lossy(&output.stderr),
    );
    assert_eq!(output.status.code(), 0, "{what}:\n{stdout}\n{stderr}");
    stdout
}
