//! Files and processes of a host whose kernel is the sprite's too.

use std::collections::BTreeSet;

use sprite_client::Stdio;

use crate::attack::{line, shell};
use crate::files::attack;
use crate::harness::{Server, ready};
use crate::outside;

/// Nothing of the host can be named, and no file with which one configures a kernel can be written.
#[tokio::test]
async fn no_way_leads_to_a_file_or_a_process_of_the_host() {
    if !ready() {
        return;
    }
    attack("files", 150).await;
}

/// Every process of a machine, its root's and the agent's too, has host ids of the sprite's own range, and no two
/// sprites share one.
#[tokio::test]
async fn ids_of_one_sprite_are_nobodys_elsewhere() {
    if !ready() {
        return;
    }
    const FIRST_ID: u32 = 0x7000_0000;
    const RANGE: u32 = 65_536;
    let server = Server::start(&[]);
    let mut seen = BTreeSet::new();
    for count in 1..=3 {
        let sprite = server.sprite(&format!("ids-{count}")).await;
        let map = shell(&sprite, "cat /proc/self/uid_map /proc/self/gid_map").await;
        assert!(
            map.split_whitespace().eq("0 1 65535 0 1 65535".split(' ')),
            "{map}"
        );
        let mut child = sprite
            .command("sudo")
            .args(["-n", "sh", "-c", "echo up; exec sleep 600"])
            .spawn()
            .await
            .unwrap();
        line(&mut child, "up").await;
        for pid in ["agent", "env"]
            .iter()
            .flat_map(|part| outside::processes(&server, part))
        {
            for uid in outside::uids(pid) {
                assert!(uid >= FIRST_ID, "process {pid} has the host's id {uid}");
                seen.insert((uid - FIRST_ID) / RANGE);
            }
        }
        assert_eq!(seen.len(), count, "{seen:?}");
    }
    server.finish();
}

/// What root makes inside, set-uid or not, is on the host a file of nobody: the mount maps ids, and the host
/// never sees the disk otherwise.
#[tokio::test]
async fn a_set_uid_file_of_a_sprite_gives_no_root_of_the_host() {
    if !ready() {
        return;
    }
    let server = Server::start(&[]);
    let sprite = server.sprite("suid").await;
    let script = "sudo sh -c 'cp /bin/sh sh && chown root:root sh && chmod 6755 sh'; id -u; stat -c %u:%a sh";
    assert_eq!(shell(&sprite, script).await, "1000\n0:6755\n");
    let script = "echo up $(id -u); read line";
    let command = sprite.command("/home/sprite/sh").args(["-p", "-c", script]);
    let mut child = command.stdin(Stdio::Piped).spawn().await.unwrap();
    assert_eq!(line(&mut child, "up").await, "up 0");
    for pid in outside::processes(&server, "env") {
        assert!(
            outside::uids(pid).iter().all(|&uid| uid >= 0x7000_0000),
            "process {pid}"
        );
    }
    server.finish();
}
