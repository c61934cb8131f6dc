use std::os::unix::fs::symlink;

use super::*;

/// A disk, whose logs are written by whoever tests.
fn disk() -> (tempfile::TempDir, Logs, std::path::PathBuf) {
    let disk = tempfile::tempdir().expect("a directory");
    let owner = rustix::process::getuid().as_raw();
    let logs = Logs::start_at(owner, disk.path()).expect("a thread");
    let directory = disk.path().join(".sprite/logs/services");
    (disk, logs, directory)
}

fn web() -> ServiceName {
    "web".parse().expect("a name")
}

async fn write(logs: &Logs, text: &str) {
    let room = logs.room(text.len()).await;
    logs.write(&web(), text.as_bytes().to_vec(), room);
}

/// The lengths of the files, after all that was written.
async fn lengths(logs: &Logs) -> Vec<u64> {
    let parts = logs.read(&web()).await.expect("the thread answers");
    parts.iter().map(|part| part.length).collect()
}

#[tokio::test]
async fn lines_are_on_the_disk_when_somebody_reads() {
    let (_disk, logs, directory) = disk();
    assert_eq!(lengths(&logs).await, Vec::<u64>::new());
    write(&logs, "a\n").await;
    write(&logs, "b\n").await;
    assert_eq!(lengths(&logs).await, [4]);
    let said = std::fs::read_to_string(directory.join("web.log"));
    assert_eq!(said.expect("a file"), "a\nb\n");
}

#[tokio::test]
async fn a_log_begins_anew_when_it_is_long_and_keeps_the_one_before() {
    let (_disk, logs, _) = disk();
    let block = "x".repeat(1 << 20);
    for _ in 0..ROTATED_AT >> 20 {
        write(&logs, &block).await;
    }
    assert_eq!(lengths(&logs).await, [ROTATED_AT]);
    write(&logs, "y").await;
    assert_eq!(lengths(&logs).await, [ROTATED_AT, 1]);
    for _ in 0..5 * (ROTATED_AT >> 20) {
        write(&logs, &block).await;
    }
    let lengths = lengths(&logs).await;
    assert_eq!(lengths.len(), 2);
    assert!(
        lengths
            .iter()
            .all(|length| *length <= ROTATED_AT + (1 << 20)),
        "{lengths:?}"
    );
}

#[tokio::test]
async fn what_somebody_puts_in_a_logs_place_is_neither_followed_nor_written() {
    let (disk, logs, directory) = disk();
    let victim = disk.path().join("victim");
    std::fs::write(&victim, "mine").expect("a file");
    let log = directory.join("web.log");
    write(&logs, "first\n").await;
    lengths(&logs).await;
    type Trick = fn(&Path, &Path) -> io::Result<()>;
    let tricks: [(&str, Trick); 5] = [
        ("a link", |log, victim| symlink(victim, log)),
        ("a hard link", |log, victim| std::fs::hard_link(victim, log)),
        ("a directory", |log, _| std::fs::create_dir(log)),
        ("a pipe", |log, _| {
            let mode = Mode::from_raw_mode(0o666);
            Ok(rustix::fs::mknodat(
                rustix::fs::CWD,
                log,
                FileType::Fifo,
                mode,
                0,
            )?)
        }),
        ("nothing", |_, _| Ok(())),
    ];
    for (what, trick) in tricks {
        std::fs::remove_file(&log).expect("the log is there");
        trick(&log, &victim).expect(what);
        write(&logs, "line\n").await;
        assert_eq!(lengths(&logs).await, [5], "{what}");
        let kind = std::fs::symlink_metadata(&log).expect(what);
        assert!(kind.is_file(), "{what}");
        assert_eq!(
            std::fs::read_to_string(&victim).expect("it is there"),
            "mine",
            "{what}"
        );
    }
}

#[tokio::test]
async fn a_directory_that_is_taken_away_or_replaced_by_a_link_is_made_again() {
    let (disk, logs, directory) = disk();
    write(&logs, "first\n").await;
    lengths(&logs).await;
    std::fs::remove_dir_all(&directory).expect("it is there");
    write(&logs, "again\n").await;
    assert_eq!(lengths(&logs).await, [6]);
    let elsewhere = disk.path().join("elsewhere");
    std::fs::create_dir(&elsewhere).expect("a directory");
    std::fs::remove_dir_all(&directory).expect("it is there");
    symlink(&elsewhere, &directory).expect("a link");
    write(&logs, "and again\n").await;
    assert_eq!(lengths(&logs).await, [10]);
    assert_eq!(
        std::fs::read_dir(&elsewhere).expect("it is there").count(),
        0
    );
}

#[tokio::test]
async fn after_the_end_nothing_is_written() {
    let (_disk, logs, directory) = disk();
    logs.close().await;
    write(&logs, "late\n").await;
    assert_eq!(lengths(&logs).await, Vec::<u64>::new());
    assert!(!directory.exists());
}
