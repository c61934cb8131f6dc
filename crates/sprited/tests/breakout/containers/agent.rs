//! The agent taken over: a hostile program in its place, started by the real driver inside the real walls.

use std::collections::BTreeSet;
use std::fs;
use std::io::Read;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::attack::{judge_report, line, program, shell};
use crate::harness::{Server, eventually, ready};
use crate::outside;

/// Puts the attacker where the server finds its agent, with the real one beside it, whose launcher builds the
/// walls.
fn take_over(server: &Server) {
    let run = Path::new("/run/sprited").join(server.instance());
    let agent = fs::read_dir(&run)
        .unwrap()
        .flatten()
        .map(|entry| entry.path());
    let agent = agent.filter(|path| {
        path.file_name()
            .is_some_and(|n| n.to_string_lossy().starts_with("agent-"))
    });
    let [agent] = agent.collect::<Vec<_>>().try_into().expect("one agent");
    let fresh = agent.with_extension("new");
    fs::rename(&agent, agent.with_extension("real")).unwrap();
    fs::copy(program(), &fresh).unwrap();
    fs::set_permissions(&fresh, fs::Permissions::from_mode(0o555)).unwrap();
    fs::rename(&fresh, &agent).unwrap();
}

fn give_back(server: &Server) {
    let run = Path::new("/run/sprited").join(server.instance());
    let entries = fs::read_dir(&run)
        .unwrap()
        .flatten()
        .map(|entry| entry.path());
    let mut entries = entries;
    let real = entries
        .find(|path| path.extension().is_some_and(|e| e == "real"))
        .unwrap();
    fs::rename(&real, real.with_extension("")).unwrap();
}

/// What the attacker tells everyone who connects.
async fn report(server: &Server, others: &[PathBuf]) -> String {
    eventually(Duration::from_secs(60), async || {
        let machines = outside::directories(server);
        let Some(machine) = machines.iter().find(|machine| !others.contains(machine)) else {
            return Err(format!("no machine: {}", server.log()));
        };
        let mut said = String::new();
        let read = UnixStream::connect(machine.join("agent.sock")).and_then(|mut socket| {
            socket.set_read_timeout(Some(Duration::from_secs(10)))?;
            // The attacker hangs up behind its last line.
            socket.read_to_string(&mut said)
        });
        match read {
            Ok(_) if said.contains("\ndone ") => Ok(said),
            other => Err(format!("{other:?} {said}")),
        }
    })
    .await
}

/// With the agent's own privileges, descriptors and filter nothing of the host is reached; the server hears
/// nonsense from it, says so, and goes on serving other sprites.
#[tokio::test(flavor = "multi_thread")]
async fn a_taken_over_agent_reaches_nothing() {
    if !ready() {
        return;
    }
    let server = Server::start(&[]);
    let honest = server.sprite("honest").await;
    assert!(honest.command("true").status().await.unwrap().success());
    let others = outside::directories(&server);
    let before = fs::metadata("/dev/null").unwrap().permissions();
    take_over(&server);
    let taken = server.sprite("taken").await;
    let exec = tokio::spawn(async move { taken.command("true").status().await });
    let said = report(&server, &others).await;
    let tried = judge_report("the agent's place", &said);
    assert!(tried > 200, "{tried} attempts");
    let refused = exec.await.unwrap();
    assert!(refused.is_err(), "{refused:?}");
    assert_eq!(fs::metadata("/dev/null").unwrap().permissions(), before);
    give_back(&server);
    // Other sprites do not notice, and new ones get a range that nobody has.
    assert!(honest.command("true").status().await.unwrap().success());
    let third = server.sprite("third").await;
    let mut child = third
        .command("sh")
        .args(["-c", "echo up; exec sleep 600"])
        .spawn()
        .await
        .unwrap();
    line(&mut child, "up").await;
    let processes = outside::processes(&server, "agent");
    let ranges: BTreeSet<u32> = processes.iter().map(|&pid| outside::uids(pid)[0]).collect();
    assert_eq!(ranges.len(), processes.len(), "{ranges:?}");
    server.finish();
}

/// The agent's own limits are there too: what it may use, taken over or not, is bounded.
#[tokio::test]
async fn the_agent_is_bounded_as_well() {
    if !ready() {
        return;
    }
    let server = Server::start(&[]);
    let sprite = server.sprite("bounded").await;
    assert_eq!(shell(&sprite, "echo up").await, "up\n");
    let pids = outside::group_number(&server, "agent", "pids", "pids.max");
    assert!(pids <= 256, "{pids}");
    let memory = outside::group_files(&server, "agent", "memory", "memory.max")
        .into_iter()
        .chain(outside::group_files(
            &server,
            "agent",
            "memory",
            "memory.limit_in_bytes",
        ));
    for file in memory {
        let most: u64 = std::fs::read_to_string(file)
            .unwrap()
            .trim()
            .parse()
            .unwrap();
        assert!(most <= 1 << 30, "{most}");
    }
    server.finish();
}
