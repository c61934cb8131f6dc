//! The kernel's rarely used doors.

use crate::attack::{As, bring, shell, withstand};
use crate::harness::{Server, ready};

/// Modules, mounts, namespaces, devices, keyrings, BPF, foreign call numbers, odd sockets: for the user and for
/// root, whose capabilities end at the sprite.
#[tokio::test]
async fn the_kernels_doors_are_shut() {
    if !ready() {
        return;
    }
    let server = Server::start(&[]);
    let sprite = server.sprite("doors").await;
    bring(&sprite).await;
    for by in [As::User, As::Root] {
        let tried = withstand(&sprite, by, &["kernel"]).await;
        assert!(tried > 200, "{tried} attempts");
    }
    // What people do need still works.
    let useful = "id -u; sudo id -u; sudo chown 12345 /tmp && sudo chown 0 /tmp && ip -o -4 addr show lo | wc -l";
    assert_eq!(shell(&sprite, useful).await, "1000\n0\n1\n");
    server.finish();
}
