//! Commands that are one call or a few.

mod harness;

use std::fs;
use std::process::Stdio;

use harness::{Conn, Fake, Home, Seen};
use serde_json::{Value, json};

async fn server() -> Fake {
    Fake::start(|seen: Seen, mut conn: Conn| async move {
        match (seen.method.as_str(), seen.path()) {
            ("GET", "/v1/sprites") if seen.header("accept") == Some("application/x-ndjson") => {
                conn.chunked().await;
                conn.chunk(b"{\"name\":\"a\",\"status\":\"warm\",\"timestamp\":\"T\"}\n").await;
                conn.chunk(b"{\"type\":\"heartbeat\"}\n").await;
                None
            }
            ("GET", "/v1/sprites") => {
                let list = json!({"sprites": [
                    {"name": "a", "status": "running", "labels": ["x", "y"], "url": "http://a-orgidx.localhost:7774"},
                    {"name": "b\u{1b}[2J", "status": "cold"},
                ], "has_more": false});
                conn.reply(200, &list.to_string()).await
            }
            ("POST", "/v1/sprites") if seen.json()["name"] == "taken" => {
                conn.reply(409, r#"{"error":"name_taken","message":"a sprite named taken exists"}"#).await
            }
            ("POST", "/v1/sprites") if seen.json()["from"]["checkpoint"] == "v9" => {
                conn.reply(404, r#"{"error":"not_found","message":"a has no checkpoint v9"}"#).await
            }
            ("POST", "/v1/sprites") if seen.json()["from"]["sprite"] == "gone" => {
                conn.reply(404, r#"{"error":"not_found","message":"there is no sprite gone"}"#).await
            }
            ("POST", "/v1/sprites") => {
                let name = seen.json()["name"].clone();
                conn.reply(201, &json!({"name": name, "status": "cold"}).to_string()).await
            }
            ("GET", "/v1/sprites/a") => conn.reply(200, r#"{"name":"a","status":"cold","version":"v"}"#).await,
            ("DELETE", "/v1/sprites/a") => conn.reply(204, "").await,
            ("POST", "/v1/sprites/a/upgrade") => {
                let upgraded = r#"{"sprite_name":"a","version":"v9","restarted":true}"#;
                conn.reply(200, upgraded).await
            }
            ("POST", "/v1/sprites/a/restart") => conn.reply(200, r#"{"message":"ok"}"#).await,
            ("GET", "/v1/sprites/a/check") => conn.reply(200, r#"{"status":"healthy"}"#).await,
            ("GET", "/v1/sprites/ill/check") => {
                conn.reply(200, r#"{"status":"unhealthy","reason":"no agent"}"#).await
            }
            ("GET", "/v1/sprites/a/exec") => {
                conn.reply(200, r#"{"count":1,"sessions":[{"id":"20","command":"/bin/bash -l","tty":true}]}"#).await
            }
            ("POST", "/v1/sprites/a/exec/20/kill") => {
                conn.chunked().await;
                conn.chunk(b"{\"type\":\"complete\",\"exit_code\":143}\n").await;
                conn.raw(b"0\r\n\r\n").await;
                Some(conn)
            }
            ("GET", "/v1/sprites/a/tasks") => {
                let end = "2099-01-01T00:00:00Z";
                let task = json!({"name": "build", "started_at": "2026-01-01T00:00:00Z", "expires_at": end});
                conn.reply(200, &json!({ "tasks": [task] }).to_string()).await
            }
            ("POST", "/v1/sprites/a/tasks") => {
                let task = json!({"name": seen.json()["name"], "expires_at": "2099-01-01T00:00:00Z"});
                conn.reply(201, &task.to_string()).await
            }
            ("PUT", "/v1/sprites/a/tasks/build") => conn.reply(200, r#"{"name":"build"}"#).await,
            ("DELETE", "/v1/sprites/a/tasks/build") => conn.reply(204, "").await,
            ("PUT", "/v1/sprites/a/domains/www.example.com") => {
                conn.reply(200, r#"{"domain":"www.example.com","url":"http://www.example.com"}"#).await
            }
            ("GET", "/v1/sprites/a/domains") => {
                let domain = json!({"domain": "www.example.com", "url": "http://www.example.com"});
                conn.reply(200, &json!({ "domains": [domain] }).to_string()).await
            }
            ("DELETE", "/v1/sprites/a/domains/www.example.com") => conn.reply(204, "").await,
            ("GET", "/v1/sprites/a/services") => {
                let state = json!({"name": "web", "status": "running", "pid": 7, "restart_count": 2});
                let web = json!({"name": "web", "cmd": "python3", "args": ["-m", "x"], "http_port": 80, "state": state});
                conn.reply(200, &json!([web]).to_string()).await
            }
            ("PUT", "/v1/sprites/a/services/web") => {
                conn.reply(200, concat!(
                    r#"{"type":"started","pid":7,"timestamp":1}"#, "\n",
                    r#"{"type":"stdout","data":"hello","timestamp":2}"#, "\n",
                    r#"{"type":"complete","log_files":{},"timestamp":3}"#, "\n"
                )).await
            }
            ("POST", "/v1/sprites/a/services/web/restart") => {
                conn.reply(200, concat!(
                    r#"{"type":"exit","exit_code":3,"timestamp":1}"#, "\n",
                    r#"{"type":"error","data":"service web exited with status 3","timestamp":2}"#, "\n",
                    r#"{"type":"complete","log_files":{},"timestamp":3}"#, "\n"
                )).await
            }
            ("GET", "/v1/sprites/a/services/web/logs") => {
                conn.reply(200, "{\"type\":\"stderr\",\"data\":\"cut\",\"timestamp\":2}\n").await
            }
            ("POST", "/v1/sprites/a/checkpoint") => {
                conn.reply(200, concat!(
                    r#"{"type":"info","data":"Creating checkpoint...","time":"T"}"#, "\n",
                    r#"{"type":"info","data":"  ID: v2","time":"T"}"#, "\n",
                    r#"{"type":"complete","data":"Checkpoint v2 created","time":"T"}"#, "\n"
                )).await
            }
            ("GET", "/v1/sprites/a/checkpoints") => {
                let all = json!([
                    {"id": "Current", "create_time": "2999-01-01T00:00:00Z", "source_id": "v2"},
                    {"id": "v2", "create_time": "2999-01-01T00:00:00Z", "source_id": "v1", "comment": "two"},
                ]);
                conn.reply(200, &all.to_string()).await
            }
            ("GET", "/v1/sprites/none/checkpoints") => conn.reply(200, r#"[{"id":"Current"}]"#).await,
            ("GET", "/v1/sprites/a/checkpoints/v2") => {
                let two = json!({"id": "v2", "comment": "two", "source_id": "v1", "history": ["v0", "v1"]});
                conn.reply(200, &two.to_string()).await
            }
            ("DELETE", "/v1/sprites/a/checkpoints/v1") => conn.reply(204, "").await,
            ("POST", "/v1/sprites/a/checkpoints/v1/restore") => {
                conn.reply(200, concat!(
                    r#"{"type":"info","data":"Restoring to checkpoint v1...","time":"T"}"#, "\n",
                    r#"{"type":"complete","data":"Restored to v1","time":"T"}"#, "\n"
                )).await
            }
            ("POST", "/v1/sprites/a/checkpoints/v2/restore") => {
                conn.reply(200, concat!(
                    r#"{"type":"info","data":"Restoring to checkpoint v2...","time":"T"}"#, "\n",
                    r#"{"type":"error","error":"the machine does not start","time":"T"}"#, "\n"
                )).await
            }
            ("POST", "/v1/sprites/a/checkpoints/v3/restore") => {
                conn.reply(200, "{\"type\":\"info\",\"data\":\"Restoring to checkpoint v3...\"}\n").await
            }
            ("POST", "/v1/sprites/a/services/signal") => conn.reply(204, "").await,
            ("DELETE", "/v1/sprites/a/services/web") => conn.reply(204, "").await,
            _ => conn.reply(404, r#"{"error":"not_found","message":"there is no such sprite"}"#).await,
        }
    })
    .await
}

#[tokio::test]
async fn lists_are_tables_for_people_and_json_for_programs() {
    let fake = server().await;
    let home = Home::of(&fake);
    let table = home.run(&["ls"]).await;
    assert_eq!(table.code, 0);
    let lines: Vec<&str> = table.stdout.lines().collect();
    assert_eq!(lines[0], "NAME   STATUS   AGE  LABELS  URL");
    assert_eq!(
        lines[1],
        "a      running  -    x,y     http://a-orgidx.localhost:7774"
    );
    assert!(
        !table.stdout.contains('\u{1b}'),
        "neither colours nor what a name brings along"
    );
    let listed = home.run(&["list", "--json", "--prefix", "p"]).await;
    let all: Value = serde_json::from_str(&listed.stdout).expect("JSON");
    assert_eq!(
        (&all[0]["name"], &all[1]["status"]),
        (&"a".into(), &"cold".into())
    );
    assert_eq!(fake.seen()[1].query("prefix"), ["p"]);
}

#[tokio::test]
async fn a_watch_shows_changes_and_fails_when_it_is_cut_off() {
    let fake = server().await;
    let home = Home::of(&fake);
    let people = home.run(&["list", "-w"]).await;
    assert_eq!(
        (people.code, people.stdout.as_str()),
        (1, "T  a  warm\n"),
        "{people:?}"
    );
    let programs = home.run(&["list", "-w", "--json"]).await;
    let change: Value = serde_json::from_str(programs.stdout.trim()).expect("one line of JSON");
    assert_eq!(change["status"], "warm");
}

#[tokio::test]
async fn creating_without_a_terminal_opens_no_console() {
    let fake = server().await;
    let home = Home::of(&fake);
    let made = home
        .run(&[
            "create", "mine", "--label", "x", "--label", "y", "--cpus", "2",
        ])
        .await;
    assert_eq!((made.code, made.stdout.as_str()), (0, "mine\n"), "{made:?}");
    let seen = fake.seen();
    assert_eq!(seen.len(), 1, "only the create was asked for");
    assert_eq!(
        seen[0].json(),
        json!({"name": "mine", "labels": ["x", "y"], "config": {"cpus": 2}})
    );

    let taken = home.run(&["create", "taken"]).await;
    assert_eq!((taken.code, taken.stdout.as_str()), (1, ""));
    assert!(
        taken.stderr.contains("a sprite named taken exists") && taken.stderr.contains("\nhint: "),
        "{taken:?}"
    );

    let random = home.run(&["create", "--skip-console", "--json"]).await;
    let sprite: Value = serde_json::from_str(&random.stdout).expect("JSON");
    assert!(sprite["name"].as_str().expect("a name").len() > 5);
}

#[tokio::test]
async fn a_console_without_a_terminal_is_refused() {
    let fake = server().await;
    let home = Home::of(&fake);
    let ran = home.run(&["console", "-s", "a"]).await;
    assert_eq!(ran.code, 2, "{ran:?}");
    assert!(ran.stderr.contains("a console needs a terminal"), "{ran:?}");
    assert!(fake.seen().is_empty());
}

#[tokio::test]
async fn destroying_is_never_done_unasked() {
    let fake = server().await;
    let home = Home::of(&fake);
    let unasked = home.run_with(&["destroy", "a"], b"y\n").await;
    assert_eq!(unasked.code, 2, "{unasked:?}");
    assert!(fake.seen().is_empty());
    let forced = home.run(&["destroy", "a", "--force", "--json"]).await;
    assert_eq!(forced.code, 0, "{forced:?}");
    assert_eq!(fake.seen()[0].method, "DELETE");
    let gone = home.run(&["destroy", "b", "--force"]).await;
    assert_eq!(gone.code, 1);
    assert!(gone.stderr.contains("there is no such sprite"), "{gone:?}");
    let two = home.run(&["destroy", "a", "-s", "b", "--force"]).await;
    assert_eq!(two.code, 2, "{two:?}");
}

#[tokio::test]
async fn a_directory_remembers_its_sprite() {
    let fake = server().await;
    let home = Home::of(&fake);
    let nameless = home.run(&["info"]).await;
    assert_eq!(nameless.code, 2);
    assert!(
        nameless.stderr.contains("hint: name one with -s"),
        "{nameless:?}"
    );

    fs::write(home.path("work/.sprite"), r#"{"theirs":1}"#).expect("written");
    assert_eq!(home.run(&["use", "a"]).await.code, 0);
    let written: Value =
        serde_json::from_slice(&fs::read(home.path("work/.sprite")).expect("written"))
            .expect("JSON");
    assert_eq!(
        written,
        json!({"organization": "personal", "sprite": "a", "theirs": 1})
    );

    // It holds below the directory too, past a directory of the same name.
    fs::create_dir_all(home.path("work/deep/.sprite")).expect("directories");
    let mut info = home.command(&["info", "--json"]);
    info.current_dir(home.path("work/deep"))
        .stdin(Stdio::null());
    let output = info.output().await.expect("ran");
    let sprite: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    assert_eq!(
        (&sprite["name"], &sprite["version"]),
        (&"a".into(), &"v".into())
    );

    assert_eq!(
        home.run(&["use", "missing"]).await.code,
        1,
        "a sprite that is not there"
    );
    assert_eq!(home.run(&["use", "--unset"]).await.code, 0);
    assert!(!home.path("work/.sprite").exists());
    assert_eq!(
        home.run(&["use"]).await.code,
        2,
        "nobody can choose from the list"
    );
}

#[tokio::test]
async fn health_is_an_exit_code() {
    let fake = server().await;
    let home = Home::of(&fake);
    assert_eq!(home.run(&["check", "a"]).await.stdout, "healthy\n");
    let ill = home.run(&["check", "ill"]).await;
    assert_eq!(
        (ill.code, ill.stdout.as_str()),
        (1, "unhealthy: no agent\n")
    );
    assert_eq!(home.run(&["restart", "a"]).await.code, 0);
    let upgraded = home.run(&["upgrade", "a"]).await;
    assert_eq!(upgraded.code, 0, "{upgraded:?}");
    assert!(upgraded.stderr.contains("upgraded a to v9"), "{upgraded:?}");
}

#[tokio::test]
async fn sessions_are_listed_and_ended() {
    let fake = server().await;
    let home = Home::of(&fake);
    let table = home.run(&["s", "ls", "-s", "a"]).await;
    assert!(
        table.stdout.contains("20  yes  no      -    /bin/bash -l"),
        "{table:?}"
    );
    let killed = home
        .run(&[
            "sessions",
            "kill",
            "20",
            "-s",
            "a",
            "--signal",
            "int",
            "--timeout",
            "3",
        ])
        .await;
    assert_eq!(killed.code, 0);
    assert!(
        killed.stderr.contains("exit status 143 (signal 15)"),
        "{killed:?}"
    );
    let request = &fake.seen()[1];
    assert_eq!(
        (request.query("signal"), request.query("timeout")),
        (vec!["INT".into()], vec!["3s".into()])
    );
    let unknown = home.run(&["sessions", "kill", "21", "-s", "a"]).await;
    assert_eq!(unknown.code, 1, "{unknown:?}");
    assert_eq!(
        home.run(&["sessions", "kill", "x", "-s", "a"]).await.code,
        2
    );
}

#[tokio::test]
async fn tasks_are_created_listed_and_ended() {
    let fake = server().await;
    let home = Home::of(&fake);
    let made = home.run(&["task", "create", "build", "-s", "a", "--expire", "30m"]);
    let made = made.await;
    assert_eq!(
        (made.code, made.stderr.contains("until 2099")),
        (0, true),
        "{made:?}"
    );
    let extended = home
        .run(&["task", "create", "build", "-s", "a", "--extend"])
        .await;
    assert_eq!(extended.code, 0, "{extended:?}");
    let table = home.run(&["task", "ls", "-s", "a"]).await;
    assert!(table.stdout.contains("build"), "{table:?}");
    assert_eq!(home.run(&["task", "rm", "build", "-s", "a"]).await.code, 0);
    assert_eq!(home.run(&["task", "rm", "other", "-s", "a"]).await.code, 1);
    assert_eq!(
        home.run(&["task", "create", "x", "-s", "a", "--expire", "soon"])
            .await
            .code,
        2
    );
    let seen = fake.seen();
    assert_eq!(seen[0].json(), json!({"name": "build", "expire": "1800s"}));
    assert_eq!(seen[1].json(), json!({"expire": "3600s"}));
}

#[tokio::test]
async fn domains_are_added_listed_and_removed() {
    let fake = server().await;
    let home = Home::of(&fake);
    let added = home
        .run(&["url", "domain", "add", "www.example.com", "-s", "a"])
        .await;
    assert_eq!(
        (added.code, added.stdout.as_str()),
        (0, "http://www.example.com\n"),
        "{added:?}"
    );
    let table = home.run(&["url", "domain", "ls", "-s", "a"]).await;
    assert!(table.stdout.contains("www.example.com"), "{table:?}");
    for (domain, code) in [("www.example.com", 0), ("other.example.com", 1)] {
        let removed = home.run(&["url", "domain", "rm", domain, "-s", "a"]).await;
        assert_eq!(removed.code, code, "{removed:?}");
    }
}

#[tokio::test]
async fn the_api_is_called_as_with_curl() {
    let fake = server().await;
    let home = Home::of(&fake);
    let got = home.run(&["api", "/v1/sprites/a"]).await;
    assert_eq!(
        (got.code, got.stdout.as_str()),
        (0, r#"{"name":"a","status":"cold","version":"v"}"#)
    );
    let below = home.run(&["api", "-s", "a", "/check"]).await;
    assert_eq!(
        (below.code, below.stdout.as_str()),
        (0, r#"{"status":"healthy"}"#)
    );
    let made = home
        .run_with(
            &["api", "/v1/sprites", "--", "-H", "X-A: b", "-d", "@-"],
            br#"{"name":"c"}"#,
        )
        .await;
    assert_eq!(made.code, 0, "{made:?}");
    let request = &fake.seen()[2];
    assert_eq!(
        (request.method.as_str(), request.header("x-a")),
        ("POST", Some("b"))
    );
    assert_eq!(request.header("content-type"), Some("application/json"));
    let missing = home.run(&["api", "/v1/nothing", "--", "-i"]).await;
    assert_eq!(missing.code, 1);
    assert!(missing.stdout.starts_with("HTTP/1.1 404\n"), "{missing:?}");
    assert_eq!(
        home.run(&["api", "/v1/sprites", "--", "-o", "x"])
            .await
            .code,
        2
    );
}

#[tokio::test]
async fn help_completion_and_reference_need_no_login() {
    let home = Home::empty();
    for args in [
        &["--help"][..],
        &["exec", "--help"],
        &["completion", "bash"],
        &["completion", "zsh"],
        &["completion", "fish"],
        &["generate-docs"],
        &["--version"],
    ] {
        let ran = home.run(args).await;
        assert_eq!(ran.code, 0, "{args:?}");
        assert!(!ran.stdout.is_empty() && ran.stderr.is_empty(), "{args:?}");
    }
    let help = home.run(&["exec", "--help"]).await;
    assert!(help.stdout.contains("Examples:"));
    assert_eq!(home.run(&["no-such-command"]).await.code, 2);
    assert_eq!(home.run(&["exec"]).await.code, 2);
}

#[tokio::test]
async fn a_reader_that_goes_away_is_no_error() {
    let fake = server().await;
    let home = Home::of(&fake);
    let mut child = home.spawn(&["completion", "bash"]);
    drop(child.stdout.take());
    let output = child.wait_with_output().await.expect("it ends");
    assert!(output.stderr.is_empty(), "{output:?}");
}

#[tokio::test]
async fn an_organisation_of_the_directory_without_a_login_is_named() {
    let fake = server().await;
    let mut home = Home::of(&fake);
    let setup = [
        "auth",
        "setup",
        "--url",
        "http://127.0.0.1:1",
        "--token",
        harness::TOKEN,
    ];
    assert_eq!(home.run(&setup).await.code, 0);
    home.set("SPRITE_TOKEN", "");
    home.set("SPRITE_URL", "");
    fs::write(
        home.path("work/.sprite"),
        r#"{"organization":"acme","sprite":"a"}"#,
    )
    .expect("written");
    let ran = home.run(&["info"]).await;
    assert!(
        ran.code == 1 && ran.stderr.contains(".sprite names the organisation acme"),
        "{ran:?}"
    );
    // Named by hand it is another matter.
    let named = home.run(&["info", "-o", "personal"]).await;
    assert!(named.stderr.contains("cannot connect to"), "{named:?}");
}

#[tokio::test]
async fn older_spellings_of_options_are_refused_and_not_misread() {
    let fake = server().await;
    let home = Home::of(&fake);
    for args in [
        &["destroy", "a", "-force"][..],
        &["exec", "-tty", "ls"],
        &["exec", "-env", "A=b", "ls"],
    ] {
        assert_eq!(home.run(args).await.code, 2, "{args:?}");
    }
    assert!(fake.seen().is_empty());
}

/// A server that takes every change of one sprite's settings and policies.
async fn changeable() -> Fake {
    Fake::start(|seen: Seen, conn: Conn| async move {
        match (seen.method.as_str(), seen.path()) {
            ("GET" | "PUT", "/v1/sprites/a") => {
                let info = json!({"name": "a", "labels": ["x"], "url": "http://a-orgidx.localhost:7774",
                    "url_settings": {"auth": "public", "private_access": "admins"}});
                conn.reply(200, &info.to_string()).await
            }
            ("GET", "/v1/sprites/a/policy/network") => {
                conn.reply(200, r#"{"rules":[{"include":"defaults"}],"enforcement":"closed"}"#).await
            }
            ("GET", "/v1/sprites/a/policy/resources") => {
                conn.reply(200, r#"{"memory":{"limit_mb":512},"pending":["memory"]}"#).await
            }
            ("POST" | "DELETE", path) if path.starts_with("/v1/sprites/a/policy/") => {
                conn.reply(204, "").await
            }
            _ => conn.reply(404, r#"{"error":"not_found","message":"sprite not found"}"#).await,
        }
    })
    .await
}

#[tokio::test]
async fn settings_are_shown_and_only_what_is_named_is_changed() {
    let fake = changeable().await;
    let home = Home::of(&fake);
    let shown = home.run(&["config", "show", "a"]).await;
    assert!(
        shown.stdout.contains("url-auth:        public\n"),
        "{shown:?}"
    );
    let args = [
        "config",
        "update",
        "a",
        "--url-auth",
        "sprite",
        "--private-access",
        "org_users",
    ];
    assert_eq!(home.run(&args).await.code, 0);
    let args = ["config", "update", "a", "--label", "x", "--label", "y"];
    assert_eq!(home.run(&args).await.code, 0);
    assert_eq!(
        home.run(&["config", "update", "a", "--clear-labels"])
            .await
            .code,
        0
    );
    let url = home.run(&["url", "-s", "a"]).await;
    assert_eq!(url.stdout, "http://a-orgidx.localhost:7774\n");
    assert_eq!(url.stderr, "auth: public\n");
    let args = ["url", "update", "-s", "a", "--auth", "public"];
    assert_eq!(home.run(&args).await.code, 0);
    let changes: Vec<Value> = fake
        .seen()
        .iter()
        .filter(|seen| seen.method == "PUT")
        .map(Seen::json)
        .collect();
    assert_eq!(
        changes,
        [
            json!({"url_settings": {"auth": "sprite", "private_access": "org_users"}}),
            json!({"labels": ["x", "y"]}),
            json!({"clear_labels": true}),
            json!({"url_settings": {"auth": "public"}}),
        ]
    );
    let nothing = home.run(&["config", "update", "a"]).await;
    assert_eq!(nothing.code, 2, "{nothing:?}");
}

#[tokio::test]
async fn policies_are_shown_as_json_and_set_from_files_and_options() {
    let fake = changeable().await;
    let home = Home::of(&fake);
    let shown = home.run(&["policy", "-s", "a", "network", "get"]).await;
    let shown: Value = serde_json::from_str(&shown.stdout).expect("JSON");
    assert_eq!(shown["enforcement"], "closed");
    let shown = home.run(&["policy", "-s", "a", "resources", "get"]).await;
    let shown: Value = serde_json::from_str(&shown.stdout).expect("JSON");
    assert_eq!(shown["pending"], json!(["memory"]));
    let file = tempfile::NamedTempFile::new().expect("a file");
    fs::write(file.path(), r#"{"rules":[{"domain":"*","action":"deny"}]}"#).expect("write");
    let path = file.path().to_str().expect("a path");
    for args in [
        &["network", "set", path][..],
        &[
            "network",
            "set",
            "--allow",
            "a.org",
            "--include",
            "defaults",
        ],
        &["network", "set", "--open"],
        &["resources", "set", "--memory", "512", "--cpus", "1"],
        &["resources", "delete"],
        &[
            "privileges",
            "set",
            "--profile",
            "minimal",
            "--no-new-privileges",
        ],
        &["privileges", "delete"],
    ] {
        let ran = home.run(&[&["policy", "-s", "a"][..], args].concat()).await;
        assert_eq!(ran.code, 0, "{args:?}: {ran:?}");
    }
    let seen = fake.seen();
    let changes: Vec<_> = seen.iter().filter(|seen| seen.method != "GET").collect();
    let bodies: Vec<Value> = changes
        .iter()
        .filter(|seen| seen.method == "POST")
        .map(|seen| seen.json())
        .collect();
    assert_eq!(
        bodies,
        [
            json!({"rules": [{"domain": "*", "action": "deny"}]}),
            json!({"rules": [{"include": "defaults"}, {"domain": "a.org", "action": "allow"}]}),
            json!({"rules": []}),
            json!({"memory": {"limit_mb": 512, "autoscale": true}, "cpu": {"limit": 1}}),
            json!({"profile": "minimal", "devices": [], "noNewPrivileges": true}),
        ]
    );
    let deleted = changes.iter().filter(|seen| seen.method == "DELETE");
    assert_eq!(deleted.count(), 2);
    for args in [
        &["network", "set"][..],
        &["network", "set", "--open", "--deny", "*"],
        &["resources", "set"],
    ] {
        let ran = home.run(&[&["policy", "-s", "a"][..], args].concat()).await;
        assert_eq!(ran.code, 2, "{args:?}: {ran:?}");
    }
}

#[tokio::test]
async fn services_are_created_listed_told_of_and_deleted() {
    let fake = server().await;
    let home = Home::of(&fake);
    let put = [
        "services",
        "create",
        "web",
        "-s",
        "a",
        "--duration",
        "2s",
        "--env",
        "A=1",
        "--needs",
        "db",
        "--http-port",
        "80",
        "--",
        "python3",
        "-m",
        "http.server",
    ];
    let made = home.run(&put).await;
    assert_eq!(
        (made.code, made.stdout.as_str()),
        (0, "hello\n"),
        "{made:?}"
    );
    assert!(made.stderr.contains("started, process 7"), "{made:?}");
    let seen = fake.seen();
    let body = seen
        .iter()
        .find(|seen| seen.method == "PUT")
        .expect("it was asked")
        .json();
    let expected = json!({
        "cmd": "python3", "args": ["-m", "http.server"], "env": {"A": "1"}, "needs": ["db"], "http_port": 80,
    });
    assert_eq!(body, expected);
    let table = home.run(&["services", "ls", "-s", "a"]).await;
    assert!(table.stdout.contains("web   running  7"), "{table:?}");
    let failed = home.run(&["services", "restart", "web", "-s", "a"]).await;
    assert_eq!(failed.code, 1, "{failed:?}");
    assert!(
        failed
            .stderr
            .contains("error: service web exited with status 3"),
        "{failed:?}"
    );
    // What was cut off does not look whole.
    let cut = home
        .run(&["services", "logs", "web", "-n", "2", "-s", "a"])
        .await;
    assert_eq!((cut.code, cut.stdout.as_str()), (1, "cut\n"), "{cut:?}");
    let signalled = home
        .run(&["services", "signal", "web", "HUP", "-s", "a"])
        .await;
    assert_eq!(signalled.code, 0, "{signalled:?}");
    assert_eq!(
        home.run(&["services", "rm", "web", "-s", "a"]).await.code,
        0
    );
    assert_eq!(
        home.run(&["services", "create", "web", "-s", "a"])
            .await
            .code,
        2
    );
}

#[tokio::test]
async fn checkpoints_are_made_listed_shown_and_deleted() {
    let fake = server().await;
    let home = Home::of(&fake);
    let made = [
        "checkpoint",
        "create",
        "-s",
        "a",
        "--comment",
        "before the upgrade",
    ];
    let made = home.run(&made).await;
    assert_eq!(
        (made.code, made.stdout.as_str()),
        (0, "Checkpoint created: v2\n"),
        "{made:?}"
    );
    assert_eq!(made.stderr, "Creating checkpoint...\n  ID: v2\n");
    assert_eq!(
        fake.seen()[0].json(),
        json!({"comment": "before the upgrade"})
    );
    let made = home
        .run(&["checkpoint", "create", "-s", "a", "--json"])
        .await;
    let shown: Value = serde_json::from_str(&made.stdout).expect("JSON");
    assert_eq!(shown["id"], "v2", "{made:?}");

    let table = home.run(&["checkpoints", "ls", "-s", "a"]).await;
    assert_eq!(
        table.stdout,
        "ID       AGE  SOURCE  COMMENT\nCurrent  0 s  v2\nv2       0 s  v1      two\n"
    );
    let none = home.run(&["checkpoint", "list", "-s", "none"]).await;
    assert_eq!(none.stderr, "none has no checkpoints\n", "{none:?}");
    let all = [
        "checkpoint",
        "list",
        "-s",
        "a",
        "--json",
        "--include-auto",
        "--history",
        "v2",
    ];
    let all = home.run(&all).await;
    let listed: Value = serde_json::from_str(&all.stdout).expect("JSON");
    assert_eq!(listed.as_array().map(Vec::len), Some(2), "{all:?}");
    let seen = fake.seen();
    let asked = seen.last().expect("it was asked");
    assert!(
        asked.target.ends_with("?includeAuto=true&history=v2"),
        "{asked:?}"
    );

    let one = home.run(&["checkpoint", "info", "v2", "-s", "a"]).await;
    assert!(one.stdout.contains("history:         v0, v1\n"), "{one:?}");
    let unknown = home.run(&["checkpoint", "info", "v9", "-s", "a"]).await;
    assert_eq!(unknown.code, 1, "{unknown:?}");
    assert!(
        unknown.stderr.contains("hint: see which there are"),
        "{unknown:?}"
    );
    let deleted = home
        .run(&["checkpoint", "rm", "v1", "-s", "a", "--json"])
        .await;
    let shown: Value = serde_json::from_str(&deleted.stdout).expect("JSON");
    assert_eq!(shown, json!({"deleted": "v1"}), "{deleted:?}");
}

#[tokio::test]
async fn a_restore_is_told_of_and_its_failure_is_the_commands() {
    let fake = server().await;
    let home = Home::of(&fake);
    for words in [&["restore", "v1"][..], &["checkpoint", "restore", "v1"]] {
        let ran = home.run(&[&["-s", "a", "--json"], words].concat()).await;
        assert_eq!(ran.code, 0, "{ran:?}");
        assert_eq!(
            ran.stderr,
            "Restoring to checkpoint v1...\nRestored to v1\n"
        );
        let shown: Value = serde_json::from_str(&ran.stdout).expect("JSON");
        assert_eq!(shown, json!({"restored": "v1"}));
    }
    let failed = home.run(&["restore", "v2", "-s", "a"]).await;
    assert_eq!(failed.code, 1, "{failed:?}");
    assert!(
        failed.stderr.contains("error: the machine does not start"),
        "{failed:?}"
    );
    // What was cut off does not look done.
    let cut = home.run(&["restore", "v3", "-s", "a"]).await;
    assert_eq!(cut.code, 1, "{cut:?}");
    assert_eq!(home.run(&["restore", "v9", "-s", "a"]).await.code, 1);
    assert_eq!(home.run(&["restore", "-s", "a"]).await.code, 2);
}

#[tokio::test]
async fn a_fork_is_made_of_the_disk_or_of_a_checkpoint_and_told_as_a_create() {
    let fake = server().await;
    let home = Home::of(&fake);
    let made = home.run(&["fork", "new", "-s", "a"]).await;
    assert_eq!((made.code, made.stdout.as_str()), (0, "new\n"), "{made:?}");
    assert!(made.stderr.starts_with("created new in "), "{made:?}");
    let then = [
        "fork",
        "-s",
        "a",
        "new",
        "--checkpoint",
        "v1",
        "--label",
        "x",
        "--label",
        "y",
        "--json",
    ];
    let then = home.run(&then).await;
    let shown: Value = serde_json::from_str(&then.stdout).expect("JSON");
    assert_eq!(shown["name"], "new", "{then:?}");
    let seen = fake.seen();
    let bodies: Vec<Value> = seen.iter().map(Seen::json).collect();
    let of_checkpoint = json!({"sprite": "a", "checkpoint": "v1"});
    assert_eq!(
        bodies,
        [
            json!({"name": "new", "from": {"sprite": "a"}}),
            json!({"name": "new", "labels": ["x", "y"], "from": of_checkpoint}),
        ]
    );
}

#[tokio::test]
async fn a_fork_that_is_refused_says_what_to_do() {
    let fake = server().await;
    let home = Home::of(&fake);
    for (words, hint) in [
        (&["taken", "-s", "a"][..], "choose another name"),
        (&["new", "-s", "gone"], "see what there is: sprite list"),
        (
            &["new", "-s", "a", "--checkpoint", "v9"],
            "sprite checkpoint list --include-auto -s a",
        ),
    ] {
        let ran = home.run(&[&["fork"], words].concat()).await;
        assert_eq!((ran.code, ran.stdout.as_str()), (1, ""), "{ran:?}");
        assert!(ran.stderr.contains(hint), "{ran:?}");
    }
    let asked = fake.seen().len();
    assert_eq!(home.run(&["fork", "new"]).await.code, 2);
    assert_eq!(home.run(&["fork", "-s", "a"]).await.code, 2);
    assert_eq!(fake.seen().len(), asked, "what makes no sense is not sent");
}
