//! The host's files and processes.

use std::fs;

use crate::attack::{As, bring, program, shell, withstand};
use crate::harness::{Server, ready};

/// Makes an attack on files of the host, as the user and as root, in at least so many attempts.
pub(crate) async fn attack(how: &str, least: usize) {
    let secrets = tempfile::tempdir().unwrap();
    let secret = secrets.path().join("secret");
    fs::write(&secret, "the host's").unwrap();
    // Whoever starts the server may leave files open for it, by oversight: a copy is inherited by what we start.
    let _left_open = rustix::io::dup(fs::File::open(&secret).unwrap()).unwrap();
    let server = Server::start(&[]);
    let sprite = server.sprite("files").await;
    bring(&sprite).await;
    let data = server.data_dir();
    let paths = [
        secret.as_path(),
        data.as_path(),
        program().parent().unwrap(),
    ]
    .map(|path| path.to_str().unwrap().to_owned());
    let mut args = vec![how];
    args.extend(paths.iter().map(String::as_str));
    for by in [As::User, As::Root] {
        let tried = withstand(&sprite, by, &args).await;
        assert!(tried > least, "{tried} attempts");
    }
    assert_eq!(fs::read_to_string(&secret).unwrap(), "the host's");
    server.finish();
}

/// Nothing of the host can be named: not by a path, a link, a process, a descriptor, or a chroot.
#[tokio::test]
async fn no_name_leads_to_a_file_of_the_host() {
    if !ready() {
        return;
    }
    attack("names", 30).await;
}

/// A new process has what it was given, and nothing of ours.
#[tokio::test]
async fn the_environment_holds_nothing_of_the_server() {
    if !ready() {
        return;
    }
    let server = Server::start(&[]);
    let sprite = server.sprite("empty").await;
    let variables = shell(&sprite, "env | cut -d= -f1 | sort | tr '\\n' ' '").await;
    let own = [
        "BROWSER", "HOME", "LANG", "LOGNAME", "PATH", "PWD", "SHELL", "SHLVL", "USER", "_",
        "OLDPWD",
    ];
    for name in variables.split_whitespace() {
        assert!(own.contains(&name), "{name} in {variables}");
    }
    let text = shell(
        &sprite,
        "cat /proc/*/environ /proc/*/cmdline 2>/dev/null | tr '\\0' '\\n'",
    )
    .await;
    assert!(
        !text.contains(&*server.data_dir().to_string_lossy()),
        "{text}"
    );
    assert!(!text.contains("agent"), "{text}");
    server.finish();
}
