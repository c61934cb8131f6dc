//! Images that lack what most have.

use std::time::Duration;

use sprite_client::Sprite;

use crate::harness::{Server, eventually, ready, text};

/// Longest boot of an emulated machine, which is longer than clients wait.
const BOOT_WITHIN: Duration = Duration::from_secs(240);

async fn info(sprite: &Sprite) -> serde_json::Value {
    let command = sprite.command("/.sprite/bin/sprite-env").arg("info");
    eventually(BOOT_WITHIN, async || match command.output().await {
        Ok(output) if output.status.success() => {
            Ok(serde_json::from_slice(&output.stdout).unwrap())
        }
        Ok(output) => Err(String::from_utf8_lossy(&output.stderr).into_owned()),
        Err(error) => Err(error.to_string()),
    })
    .await
}

/// Without the loader of glibc, as in an image of musl, nothing of the image's own runs any more; `sprite-env` does.
#[tokio::test]
async fn the_command_needs_nothing_of_the_image() {
    if !ready() {
        return;
    }
    let server = Server::start(&[]);
    let sprite = server.sprite("bare").await;
    text(&sprite, "sync; sudo find / -xdev -name 'ld-linux*' -delete").await;
    let shell = sprite.command("sh").args(["-c", "true"]).status().await;
    assert!(
        !shell.is_ok_and(|status| status.success()),
        "the loader is still there"
    );
    assert_eq!(info(&sprite).await["sprite_name"], "bare");
    sprite.restart().await.unwrap();
    assert_eq!(info(&sprite).await["sprite_name"], "bare");
    let browser = sprite
        .command("/.sprite/bin/sprite-browser")
        .arg("http://a/")
        .output()
        .await
        .unwrap();
    assert_eq!(
        (browser.status.code(), &browser.stdout[..]),
        (1, &b"http://a/\n"[..])
    );
    server.finish();
}
