//! Inputs to begin with: what well-behaved clients say.

/// A seed and the entry that it is for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seed {
    /// A name of [`super::ENTRIES`].
    pub entry: &'static str,
    /// A name among those of the entry.
    pub name: &'static str,
    /// What the entry is given.
    pub bytes: Vec<u8>,
}

const HELLOS: &[(&str, &str)] = &[
    ("plain", r#"{"host":"localhost","port":8080}"#),
    ("half", r#"{"port":1,"half_close":true,"keep_alive":true}"#),
    ("too-high", r#"{"host":"10.0.0.1","port":65536}"#),
];

const ENVELOPES: &[(&str, &str)] = &[
    (
        "exec",
        r#"control:{"type":"op.start","op":"exec","args":{"cmd":["ls","-la"],"env":["K=V"],"tty":"true","rows":24}}"#,
    ),
    (
        "attach",
        r#"control:{"type":"op.start","op":"exec","args":{"id":"20","output_offset":"5"}}"#,
    ),
    (
        "proxy",
        r#"control:{"type":"op.start","op":"proxy","args":{"host":"localhost","port":"80"}}"#,
    ),
    (
        "bare",
        r#"{"type":"start","operation":"proxy","params":{"port":80,"keep_alive":true}}"#,
    ),
    (
        "files",
        r#"control:{"type":"op.start","op":"fs.read","args":"path=%2Fa&workingDir=%2F"}"#,
    ),
    (
        "chmod",
        r#"{"type":"op.start","op":"fs.chmod","args":{"path":"/a","mode":"0755","recursive":true}}"#,
    ),
    ("release", r#"{"type":"release"}"#),
    ("unknown", r#"control:{"type":"dial"}"#),
];

const QUERIES: &[(&str, &str)] = &[
    ("exec", "cmd=sh&cmd=-c&cmd=exit+42&path=sh&stdin=false"),
    ("variables", "cmd=env&env=A%3Db%3Dc%2Bd&env=B=&dir=%2Ftmp"),
    (
        "terminal",
        "cmd=stty&cmd=size&tty=true&rows=24&cols=80&detachable",
    ),
    (
        "run-on",
        "cmd=cat&stdin=1&max_run_after_disconnect=1h2m3.5s",
    ),
    (
        "attach",
        "id=20&stdout_offset=18446744073709551615&stderr_offset=0&rows=1&cols=65535",
    ),
    (
        "write",
        "path=%2Fa&mode=0644&mkdirParents=true&asRoot=false",
    ),
    (
        "chown",
        "path=a&workingDir=%2Fhome&uid=1000&gid=users&recursive=true",
    ),
    ("copy", "source=%2Fa&dest=%2Fb&preserveAttrs=true"),
];

const HEADS: &[(&str, &str)] = &[
    ("get", "\u{5}GET /v1/sprites HTTP/1.1\r\nHost: x\r\n\r\n"),
    (
        "query",
        "\u{1}GET /v1/sprites/s/exec?cmd=a&env=b%3Dc HTTP/1.1\r\n\r\n",
    ),
    ("none", "\u{3}\r\n\n\n"),
];

const VISITORS: &[(&str, &str)] = &[
    (
        "sprite",
        "My-App-bhmkra.sprites.localhost.:7774\na=1; sprite-url=1700000000.tok.abc; b=2\n/a?b=c",
    ),
    (
        "domain",
        "www.example.com:443\n__Host-sprite-url-login=0123; SPRITE-URL=x\n//evil.example.com",
    ),
    ("nobody", ".sprites.localhost\n;;=;\n/\\evil"),
    ("address", "[::1]:7774\n\n/%2F"),
];

/// A masked frame behind the byte that says how it is cut.
fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
    let length = u8::try_from(payload.len()).expect("seeds are short");
    let mask = [1_u8, 2, 3, 4];
    let masked = payload
        .iter()
        .zip(mask.iter().cycle())
        .map(|(byte, mask)| byte ^ mask);
    [first, 0x80 | length]
        .into_iter()
        .chain(mask)
        .chain(masked)
        .collect()
}

fn sockets() -> Vec<(&'static str, Vec<u8>)> {
    let fragments = [frame(0x02, b"ab"), frame(0x89, b"p"), frame(0x80, b"cd")];
    vec![
        (
            "text",
            frame(0x81, br#"{"type":"resize","cols":90,"rows":30}"#),
        ),
        ("stdin", frame(0x82, b"\0hello")),
        ("fragments", fragments.concat()),
        ("close", frame(0x88, &[0x03, 0xe8])),
        (
            "medium",
            [&[0x82, 0xfe, 0, 200, 0, 0, 0, 0][..], &[b'x'; 200]].concat(),
        ),
        (
            "too-long",
            vec![0x82, 0xff, 0, 0, 0, 0, 0x40, 0, 0, 0, 0, 0, 0, 0],
        ),
    ]
}

/// All of them.
#[must_use]
pub fn seeds() -> Vec<Seed> {
    let texts = [
        ("hello", HELLOS),
        ("envelope", ENVELOPES),
        ("query", QUERIES),
        ("head", HEADS),
        ("visitor", VISITORS),
    ];
    let texts = texts.into_iter().flat_map(|(entry, seeds)| {
        seeds.iter().map(move |(name, text)| Seed {
            entry,
            name,
            bytes: text.as_bytes().to_vec(),
        })
    });
    let sockets = sockets().into_iter().map(|(name, frames)| Seed {
        entry: "socket",
        name,
        bytes: [&[3][..], &frames].concat(),
    });
    texts.chain(sockets).collect()
}
