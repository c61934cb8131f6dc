//! Tokens: where they are kept, and where they go.

mod harness;

use std::fs;
use std::os::unix::fs::PermissionsExt;

use harness::{Conn, Fake, Home, Seen, TOKEN};

/// A server that knows one token.
async fn server() -> Fake {
    Fake::start(|seen: Seen, conn: Conn| async move {
        if seen.header("authorization") != Some(&format!("Bearer {TOKEN}")) {
            return conn
                .reply(
                    401,
                    r#"{"error":"unauthorized","message":"the token is not valid"}"#,
                )
                .await;
        }
        match seen.path() {
            "/v1/organization" => {
                conn.reply(200, r#"{"organization":{"slug":"personal"}}"#)
                    .await
            }
            "/v1/sprites" => conn.reply(200, r#"{"sprites":[]}"#).await,
            _ => {
                conn.reply(404, r#"{"error":"not_found","message":"no such sprite"}"#)
                    .await
            }
        }
    })
    .await
}

fn mode(home: &Home, name: &str) -> u32 {
    fs::metadata(home.path(name))
        .expect("it is there")
        .permissions()
        .mode()
        & 0o777
}

#[tokio::test]
async fn a_token_from_standard_input_is_kept_for_its_owner_only() {
    let fake = server().await;
    let home = Home::empty();
    let ran = home
        .run_with(
            &["auth", "setup", "--url", &fake.url(), "--token", "-"],
            format!("{TOKEN}\n").as_bytes(),
        )
        .await;
    assert_eq!((ran.code, ran.stdout.as_str()), (0, ""), "{ran:?}");
    assert!(!ran.stderr.contains("secret"), "{ran:?}");
    assert_eq!(
        (
            mode(&home, ".sprites"),
            mode(&home, ".sprites/sprites.json")
        ),
        (0o700, 0o600)
    );
    let url = fake.url();
    let logins = home.logins();
    assert_eq!(logins["version"], "1");
    assert_eq!(
        logins["current_selection"],
        serde_json::json!({"url": url, "org": "personal"})
    );
    let login = &logins["urls"][&url]["orgs"]["personal"];
    assert_eq!(
        (&login["api_token"], &login["use_keyring"]),
        (&TOKEN.into(), &false.into())
    );

    // And it is used from now on.
    let listed = home.run(&["list", "--json"]).await;
    assert_eq!((listed.code, listed.stdout.trim()), (0, "[]"), "{listed:?}");
}

#[tokio::test]
async fn a_token_that_the_server_refuses_is_not_stored() {
    let fake = server().await;
    let home = Home::empty();
    let ran = home
        .run(&[
            "auth",
            "setup",
            "--url",
            &fake.url(),
            "--token",
            "personal/a/b/wrong",
        ])
        .await;
    assert_eq!(ran.code, 1, "{ran:?}");
    assert!(
        ran.stderr.contains("the token is not valid") && ran.stderr.contains("hint: "),
        "{ran:?}"
    );
    assert!(!home.path(".sprites/sprites.json").exists());
    let empty = home
        .run(&["auth", "setup", "--url", &fake.url(), "--token", "-"])
        .await;
    assert_eq!(empty.code, 1, "{empty:?}");
}

/// A token goes only to the server that it was stored for: scheme, host and port.
#[tokio::test]
async fn a_stored_token_is_never_sent_to_another_server() {
    let fake = server().await;
    let other = server().await;
    let mut home = Home::empty();
    let setup = ["auth", "setup", "--url", &fake.url(), "--token", "-"];
    assert_eq!(home.run_with(&setup, TOKEN.as_bytes()).await.code, 0);
    let localhost = fake.url().replace("127.0.0.1", "localhost");
    for elsewhere in [other.url(), localhost] {
        home.set("SPRITE_URL", elsewhere.clone());
        let seen_before = fake.seen().len();
        for args in [
            &["list"][..],
            &["exec", "-s", "a", "true"],
            &["api", "/v1/sprites"],
            &["info", "a"],
        ] {
            let ran = home.run(args).await;
            assert_eq!(ran.code, 1, "{ran:?}");
            assert!(
                ran.stderr.contains(&format!("no token for {elsewhere}")),
                "{ran:?}"
            );
        }
        assert_eq!(fake.seen().len(), seen_before);
    }
    assert!(other.seen().is_empty());
}

#[tokio::test]
async fn the_address_of_a_call_cannot_lead_the_token_elsewhere() {
    let fake = server().await;
    let other = server().await;
    let home = Home::of(&fake);
    let host = other.url().replace("http://", "");
    for path in [
        other.url(),
        format!("//{host}/x"),
        format!("@{host}/x"),
        format!(".{host}/x"),
    ] {
        home.run(&["api", &path]).await;
    }
    assert!(other.seen().is_empty());
}

#[tokio::test]
async fn the_environment_goes_before_the_file_and_needs_no_home() {
    let fake = server().await;
    let mut home = Home::of(&fake);
    home.set("HOME", "");
    assert_eq!(home.run(&["list"]).await.code, 0);
    let wrong = home.run(&["list", "-o", "other"]).await;
    assert_eq!(wrong.code, 2, "{wrong:?}");

    // SPRITE_URL is looked at before SPRITES_API_URL.
    home.set("SPRITES_API_URL", "http://127.0.0.1:1");
    assert_eq!(home.run(&["list"]).await.code, 0);
    home.set("SPRITE_URL", "");
    let ran = home.run(&["list"]).await;
    assert!(
        ran.code == 1 && ran.stderr.contains("cannot connect to http://127.0.0.1:1"),
        "{ran:?}"
    );
}

#[tokio::test]
async fn without_anything_the_server_is_the_local_one() {
    let home = Home::empty();
    let ran = home.run(&["list"]).await;
    assert_eq!(ran.code, 1);
    assert!(
        ran.stderr.contains("no token for http://127.0.0.1:7774"),
        "{ran:?}"
    );
    assert!(
        ran.stderr.contains("hint: log in: sprited token create"),
        "{ran:?}"
    );
    assert!(
        !home.path(".sprites").exists(),
        "reading leaves nothing behind"
    );
}

#[tokio::test]
async fn an_unreachable_server_does_not_keep_a_token_from_being_stored() {
    let home = Home::empty();
    let ran = home
        .run(&[
            "auth",
            "setup",
            "--url",
            "http://127.0.0.1:1",
            "--token",
            TOKEN,
        ])
        .await;
    assert_eq!(ran.code, 0, "{ran:?}");
    assert!(
        ran.stderr
            .contains("warning: the token is stored unchecked"),
        "{ran:?}"
    );
    assert_eq!(home.logins()["current_selection"]["org"], "personal");
}

#[tokio::test]
async fn logging_out_forgets_and_keeps_what_others_wrote() {
    let fake = server().await;
    let home = Home::empty();
    fs::create_dir(home.path(".sprites")).expect("a directory");
    let theirs = r#"{"version":"1","theirs":true,"urls":{"https://h":{"url":"https://h","orgs":{"o":{"name":"o","keyring_key":"k","use_keyring":true}}}}}"#;
    fs::write(home.path(".sprites/sprites.json"), theirs).expect("written");
    let setup = ["auth", "setup", "--url", &fake.url(), "--token", "-"];
    assert_eq!(home.run_with(&setup, TOKEN.as_bytes()).await.code, 0);
    assert_eq!(mode(&home, ".sprites"), 0o700);

    let listed = home.run(&["org", "list", "--json"]).await;
    let logins: serde_json::Value = serde_json::from_str(&listed.stdout).expect("JSON");
    assert_eq!(logins.as_array().expect("a list").len(), 2);
    let table = home.run(&["org", "list"]).await;
    assert!(table.stdout.contains("*  personal"), "{table:?}");
    assert!(!table.stdout.contains("secret"));

    let chosen = home.run(&["org", "use", "o", "--url", "https://h"]).await;
    assert_eq!(chosen.code, 0, "{chosen:?}");
    let keyring = home.run(&["list"]).await;
    assert!(
        keyring.code == 1 && keyring.stderr.contains("keyring"),
        "{keyring:?}"
    );
    assert_eq!(home.run(&["org", "use", "nobody"]).await.code, 1);

    assert_eq!(home.run(&["logout", &fake.url()]).await.code, 0);
    let left = home.logins();
    assert_eq!(
        (
            &left["theirs"],
            &left["urls"]["https://h"]["orgs"]["o"]["keyring_key"]
        ),
        (&true.into(), &"k".into())
    );
    assert!(!left.to_string().contains("secret"));
    assert_eq!(home.run(&["logout", "--all"]).await.code, 0);
    assert_eq!(home.logins()["urls"], serde_json::json!({}));
}

#[tokio::test]
async fn a_file_that_is_not_understood_is_not_touched() {
    for text in ["{", r#"{"version":"2"}"#, "[]"] {
        let home = Home::empty();
        fs::create_dir(home.path(".sprites")).expect("a directory");
        fs::write(home.path(".sprites/sprites.json"), text).expect("written");
        let ran = home
            .run(&[
                "auth",
                "setup",
                "--url",
                "http://127.0.0.1:1",
                "--token",
                TOKEN,
            ])
            .await;
        assert_eq!(ran.code, 1, "{ran:?}");
        assert!(ran.stderr.contains("sprites.json"), "{ran:?}");
        let after = fs::read_to_string(home.path(".sprites/sprites.json")).expect("still there");
        assert_eq!(after, text);
    }
}

#[tokio::test]
async fn many_logins_at_once_are_all_kept() {
    let home = Home::empty();
    let tokens: Vec<String> = (0..8).map(|n| format!("org{n}/a/b/c")).collect();
    let runs = tokens.iter().map(|token| {
        let home = &home;
        async move {
            let args = [
                "auth",
                "setup",
                "--url",
                "http://127.0.0.1:1",
                "--token",
                token,
            ];
            assert_eq!(home.run(&args).await.code, 0);
        }
    });
    futures_util::future::join_all(runs).await;
    let orgs = home.logins()["urls"]["http://127.0.0.1:1"]["orgs"].clone();
    assert_eq!(orgs.as_object().expect("an object").len(), 8);
}

#[tokio::test]
async fn login_needs_someone_to_ask() {
    let ran = Home::empty().run(&["login"]).await;
    assert_eq!(ran.code, 2);
    assert!(ran.stderr.contains("sprite auth setup"), "{ran:?}");
}
