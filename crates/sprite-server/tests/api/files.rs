//! Behaviour reference §1.10: files over HTTP.

use std::time::Duration;

use serde_json::json;
use sprite_archive::{Entry, Item, Kind, Reader, Time, Writer};
use sprite_host::HostOptions;
use sprite_server::ServeLimits;
use sprite_testkit::TestHost;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

use crate::setup::Server;
use crate::setup::socket::Event;

const FS: &str = "/v1/sprites/s/fs";

async fn put(server: &Server, path: &str, body: &str) {
    let request = server.request("PUT", &format!("{FS}/write?path={path}"));
    let answer = request.body(body).send().await;
    assert_eq!(answer.status(), 200);
}

#[tokio::test]
async fn what_is_written_is_read_in_whole_and_in_parts() {
    let server = Server::with_sprite().await;
    let request = server.request("PUT", &format!("{FS}/write?path=/a&mode=0755&workingDir=/"));
    let answer = request.body("0123456789").send().await;
    assert_eq!(
        answer.json(),
        json!({"path": "/a", "size": 10, "mode": "0755"})
    );
    let whole = server.get(&format!("{FS}/read?path=/a")).await;
    assert_eq!(
        (whole.status(), whole.body()),
        (200, b"0123456789".to_vec())
    );
    assert_eq!(whole.head.header("content-length"), Some("10"));
    assert_eq!(whole.head.header("accept-ranges"), Some("bytes"));
    for (range, status, told, body) in [
        ("bytes=2-4", 206, Some("bytes 2-4/10"), "234"),
        ("bytes=-3", 206, Some("bytes 7-9/10"), "789"),
        ("bytes=9-", 206, Some("bytes 9-9/10"), "9"),
        ("bytes=1-2,4-5", 200, None, "0123456789"),
        ("lines=1-2", 200, None, "0123456789"),
    ] {
        let request = server.request("GET", &format!("{FS}/read?path=/a"));
        let part = request.header("Range", range).send().await;
        assert_eq!(part.status(), status, "{range}");
        assert_eq!(part.head.header("content-range"), told, "{range}");
        assert_eq!(part.body(), body.as_bytes(), "{range}");
    }
    let request = server.request("GET", &format!("{FS}/read?path=/a"));
    let none = request.header("Range", "bytes=10-").send().await;
    assert_eq!(none.status(), 416);
    assert_eq!(none.head.header("content-range"), Some("bytes */10"));
    let head = server
        .request("HEAD", &format!("{FS}/read?path=/a"))
        .send()
        .await;
    assert_eq!(
        (head.status(), head.head.header("content-length")),
        (200, Some("10"))
    );
}

#[tokio::test]
async fn a_file_lists_itself_and_what_changes_is_told() {
    let server = Server::with_sprite().await;
    put(&server, "/d/a", "12345").await;
    let list = server.get(&format!("{FS}/list?path=/d/a")).await.json();
    assert_eq!((&list["path"], &list["count"]), (&json!("/d/a"), &json!(1)));
    let entry = &list["entries"][0];
    assert_eq!(entry["name"], "a");
    assert_eq!(entry["type"], "file");
    assert_eq!(entry["mode"], "0644");
    assert_eq!(entry["size"], 5);
    assert_eq!(entry["isDir"], false);
    assert_eq!(entry["modTime"], "2023-11-14T22:13:20.000000Z");
    let said = server
        .post(
            &format!("{FS}/rename"),
            r#"{"source":"/d/a","dest":"/d/b"}"#,
        )
        .await;
    assert_eq!(said.json(), json!({"source": "/d/a", "dest": "/d/b"}));
    let said = server
        .post(&format!("{FS}/copy"), r#"{"source":"/d/b","dest":"/d/c"}"#)
        .await;
    let copied = json!([{"source": "/d/b", "dest": "/d/c"}]);
    assert_eq!(
        said.json(),
        json!({"copied": copied, "count": 1, "totalBytes": 0})
    );
    let said = server
        .post(&format!("{FS}/chmod"), r#"{"path":"/d/b","mode":"755"}"#)
        .await;
    let affected = json!([{"path": "/d/b", "mode": "0755"}]);
    assert_eq!(said.json(), json!({"affected": affected, "count": 1}));
    // By the body, and by the query, which wins.
    let request = server.request("DELETE", &format!("{FS}/delete?path=/d/b"));
    let said = request
        .body(r#"{"path":"/d/c","recursive":true}"#)
        .send()
        .await;
    assert_eq!(said.json(), json!({"deleted": ["/d/b"], "count": 1}));
    let request = server.request("DELETE", &format!("{FS}/delete"));
    let said = request.body(r#"{"path":"/d/c"}"#).send().await;
    assert_eq!(said.json(), json!({"deleted": ["/d/c"], "count": 1}));
    let gone = server.get(&format!("{FS}/list?path=/d")).await;
    assert_eq!(gone.status(), 404);
}

#[tokio::test]
async fn refusals_have_the_kernels_code_and_the_path() {
    let server = Server::with_sprite().await;
    put(&server, "/a", "x").await;
    let said = server.get(&format!("{FS}/read?path=/none")).await;
    assert_eq!(said.status(), 404);
    said.error();
    let said = said.json();
    assert_eq!(
        (&said["code"], &said["path"]),
        (&json!("ENOENT"), &json!("/none"))
    );
    let said = server
        .post(&format!("{FS}/chown"), r#"{"path":"/a","uid":0}"#)
        .await;
    assert_eq!(
        (said.status(), &said.json()["code"]),
        (403, &json!("EPERM"))
    );
}

#[tokio::test]
async fn what_makes_no_sense_is_refused() {
    let server = Server::with_sprite().await;
    let long = "x".repeat(5000);
    for (method, path, body) in [
        ("GET", "read", ""),
        ("GET", "read?path=", ""),
        ("GET", "read?path=%00", ""),
        ("GET", &format!("read?path={long}"), ""),
        ("GET", "list", ""),
        ("GET", "list?path=/&recursive=maybe", ""),
        ("PUT", "write", "x"),
        ("PUT", "write?path=/a&mode=9", "x"),
        ("PUT", "write?path=/a&mode=10000", "x"),
        ("DELETE", "delete", ""),
        ("POST", "rename", r#"{"source":"/a"}"#),
        ("POST", "copy", r#"{"dest":"/a"}"#),
        ("POST", "chmod", r#"{"path":"/a"}"#),
        ("POST", "chmod", r#"{"path":"/a","mode":"rwx"}"#),
        ("POST", "chown", r#"{"path":"/a"}"#),
    ] {
        let request = server.request(method, &format!("{FS}/{path}"));
        let said = request.body(body).send().await;
        assert_eq!(said.status(), 400, "{method} {path} {body}");
        assert_eq!(said.json()["code"], "EINVAL", "{method} {path} {body}");
    }
    for body in ["[]", "{", r#"{"path":7}"#] {
        let said = server.post(&format!("{FS}/chmod"), body).await;
        assert_eq!(said.status(), 400, "{body}");
    }
    let unknown = server.get("/v1/sprites/none/fs/read?path=/a").await;
    assert_eq!(
        (unknown.status(), unknown.error().as_str()),
        (404, "not_found")
    );
}

/// A body that breaks off is no file, and a machine that is gone in the middle is no whole answer.
#[tokio::test]
async fn what_breaks_off_never_looks_whole() {
    let server = Server::with_sprite().await;
    put(&server, "/a", "old").await;
    let mut tcp = TcpStream::connect(server.addr).await.unwrap();
    let head = format!(
        "PUT {FS}/write?path=/a HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {}\r\nContent-Length: 10\r\n\r\nhalf",
        server.test.token
    );
    tcp.write_all(head.as_bytes()).await.unwrap();
    tcp.shutdown().await.unwrap();
    let mut rest = Vec::new();
    // However the server ends the connection.
    let _ = tokio::io::AsyncReadExt::read_to_end(&mut tcp, &mut rest).await;
    let read = server.get(&format!("{FS}/read?path=/a")).await;
    assert_eq!(read.body(), b"old");

    put(&server, "/endless", "x".repeat(100_000).as_str()).await;
    let mut coming = server
        .request("GET", &format!("{FS}/read?path=/endless"))
        .begin()
        .await;
    assert!(coming.chunk().await.unwrap().is_some());
    server
        .test
        .driver
        .machines()
        .remove(0)
        .end("killed by the test");
    while let Ok(chunk) = coming.chunk().await {
        assert!(chunk.is_some(), "the answer looks whole");
    }
}

fn archive(names: &[&str]) -> Vec<u8> {
    let mut archive = Writer::new(Vec::new());
    for name in names {
        let entry = Entry {
            name: name.as_bytes().to_vec(),
            kind: Kind::File { size: 5 },
            mode: 0o644,
            mtime: Time {
                seconds: 1,
                nanos: 0,
            },
        };
        archive.entry(&entry).unwrap();
        archive.content(5, &mut &b"hello"[..], |_| {}).unwrap();
    }
    archive.finish().unwrap()
}

#[tokio::test]
async fn directories_come_and_go_as_archives() {
    let server = Server::with_sprite().await;
    let path = format!("{FS}/archive?path=/d");
    let request = server.request("PUT", &path);
    let said = request.body(archive(&["a", "sub/b"])).send().await;
    let unpacked = json!({"path": "/d", "files": 2, "directories": 0, "links": 0, "bytes": 10});
    assert_eq!((said.status(), said.json()), (200, unpacked));
    let read = server.get(&format!("{FS}/read?path=/d/sub/b")).await;
    assert_eq!(read.body(), b"hello");
    let packed = server.get(&path).await;
    assert_eq!(packed.status(), 200);
    assert_eq!(
        packed.head.header("content-type"),
        Some("application/x-tar")
    );
    let body = packed.body();
    let mut packed = Reader::new(&body[..]);
    let mut names = Vec::new();
    while let Some(item) = packed.next_item().unwrap() {
        if let Item::Entry(entry) = item {
            names.push(entry.shown());
        }
    }
    assert_eq!(names, ["a", "sub/b"]);

    // What is none is refused, and a client is answered although it has more to say.
    let request = server.request("PUT", &path);
    let said = request.body(vec![b'x'; 4 << 20]).send().await;
    assert_eq!(
        (said.status(), &said.json()["code"]),
        (400, &json!("EINVAL"))
    );
    for (method, query) in [
        ("PUT", ""),
        ("GET", ""),
        ("GET", "?path=%00"),
        ("PUT", "?path="),
    ] {
        let request = server.request(method, &format!("{FS}/archive{query}"));
        assert_eq!(request.send().await.status(), 400, "{method} {query}");
    }
}

/// §1.5: operations on files over the control socket, in the dialect whose arguments are a query.
#[tokio::test]
async fn the_control_socket_handles_files() {
    let server = Server::with_sprite().await;
    let mut ws = server.ws("/v1/sprites/s/control").await.terminal();
    let start = |op: &str, args: &str| json!({"type": "op.start", "op": op, "args": args});
    let complete = Event::Text(json!({"type": "op.complete", "args": {"exitCode": 0}}));

    ws.send_text(start("fs.write", "path=%2Fa&mode=0600")).await;
    assert_eq!(ws.next().await, Event::Text(json!({"path": "/a"})));
    ws.send_binary("hello").await;
    ws.send_text(json!({"type": "release"})).await;
    let written = json!({"path": "/a", "size": 5, "mode": "0600"});
    assert_eq!(ws.next().await, Event::Text(written));
    assert_eq!(ws.next().await, complete);

    ws.send_text(start("fs.read", "path=%2Fa")).await;
    let read = json!({"path": "/a", "size": 5, "offset": 0, "length": 5, "mode": "0644"});
    assert_eq!(ws.next().await, Event::Text(read));
    assert_eq!(ws.next().await, Event::Terminal("hello".to_owned()));
    assert_eq!(ws.next().await, complete);

    ws.send_text(start("fs.delete", "path=%2Fa")).await;
    let deleted = json!({"deleted": ["/a"], "count": 1});
    assert_eq!(ws.next().await, Event::Text(deleted));
    assert_eq!(ws.next().await, complete);
    for args in ["path=%2Fa", ""] {
        ws.send_text(start("fs.list", args)).await;
        let Event::Text(said) = ws.next().await else {
            panic!("an error");
        };
        assert_eq!(said["type"], "op.error", "{said}");
    }
    assert_eq!(ws.close().await, [Event::Close(1000), Event::Gone]);
}

/// §11.12: a watch keeps nothing awake, and is told when the sprite falls asleep.
#[tokio::test]
async fn watches_tell_what_happens_and_keep_nothing_awake() {
    let options = HostOptions {
        idle_timeout: Some(Duration::from_millis(300)),
        ..TestHost::options()
    };
    let server = Server::with(options, ServeLimits::default()).await;
    server.test.create("s").await;
    let mut ws = server.ws(&format!("{FS}/watch")).await;
    ws.send_text(json!({"type": "nonsense"})).await;
    let Event::Text(said) = ws.next().await else {
        panic!("an error");
    };
    assert_eq!(said["type"], "error");
    ws.send_text(json!({"type": "subscribe", "paths": ["/a"], "recursive": true}))
        .await;
    let subscribed = json!({"type": "subscribed", "paths": ["/a"], "recursive": true});
    assert_eq!(ws.next().await, Event::Text(subscribed));
    let event = json!({
        "type": "event", "event": "write", "path": "/a", "size": 1, "isDir": false,
        "timestamp": "2023-11-14T22:13:20.000000Z",
    });
    assert_eq!(ws.next().await, Event::Text(event));
    ws.send_text(json!({"type": "unsubscribe", "paths": ["/a"]}))
        .await;
    let unsubscribed = json!({"type": "unsubscribed", "paths": ["/a"]});
    assert_eq!(ws.next().await, Event::Text(unsubscribed));
    assert_eq!(ws.until(|_| false).await, [Event::Close(1001)]);
    let plain = server.get(&format!("{FS}/watch")).await;
    assert_eq!(plain.status(), 426);
}
