//! What released hosts and agents said of services is understood for ever: see `frozen/README.md`.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Debug;
use std::num::NonZeroU16;

use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use sprite_agent_api::message::{Failure, FailureKind};
use sprite_agent_api::services::{
    ServiceEvent, ServiceHappening, ServiceSet, ServiceState, ServiceStatus, ServicesCall,
    ServicesReply, WantedService,
};
use sprite_types::{ServiceName, ServiceRun, ServiceSpec};

/// Every line reads as its value and is written so today, and every variant has a line.
fn check<T>(file: &str, tags: &[&str], variants: &[&str], values: &[T])
where
    T: Serialize + DeserializeOwned + PartialEq + Debug,
{
    let path = format!("{}/tests/frozen/v1/{file}", env!("CARGO_MANIFEST_DIR"));
    let text = std::fs::read_to_string(path).expect("it is in the repository");
    let lines: Vec<&str> = text.lines().collect();
    let mut seen = BTreeSet::new();
    for (at, value) in values.iter().enumerate() {
        let now = serde_json::to_value(value).expect("messages are JSON");
        let line = lines.get(at).copied();
        let line = line.unwrap_or_else(|| panic!("{file} has no line {}: {now}", at + 1));
        let then: Value = serde_json::from_str(line).expect("a line is JSON");
        assert_eq!(now, then, "{file}");
        let read: T = serde_json::from_str(line).expect(line);
        assert_eq!(&read, value, "{file}");
        let name: Vec<&str> = tags.iter().filter_map(|tag| then[tag].as_str()).collect();
        seen.insert(name.join(": "));
    }
    assert_eq!(lines.len(), values.len(), "{file}: a value for each line");
    let all: BTreeSet<String> = variants.iter().map(|name| (*name).to_owned()).collect();
    assert_eq!(seen, all, "{file}: a line for each variant");
}

fn name() -> ServiceName {
    "web".parse().expect("a name")
}

#[test]
fn calls_of_released_hosts_are_understood() {
    let calls = [
        ServicesCall::Apply,
        ServicesCall::States,
        ServicesCall::Start {
            name: name(),
            watch_ms: 5000,
        },
        ServicesCall::Restart {
            name: name(),
            watch_ms: 5000,
        },
        ServicesCall::Stop {
            name: name(),
            timeout_ms: 10_000,
        },
        ServicesCall::Signal {
            name: name(),
            signal: 15,
        },
        ServicesCall::Logs {
            name: name(),
            lines: Some(10),
            follow_ms: 0,
        },
        ServicesCall::Logs {
            name: name(),
            lines: None,
            follow_ms: 60_000,
        },
        ServicesCall::Demand {
            name: name(),
            within_ms: 8000,
        },
    ];
    let variants = [
        "apply", "states", "start", "restart", "stop", "signal", "logs", "demand",
    ];
    check("services-calls.jsonl", &["call"], &variants, &calls);
}

#[test]
fn sets_of_released_hosts_are_understood() {
    let bare = ServiceSpec {
        cmd: "postgres".to_owned(),
        args: Vec::new(),
        env: BTreeMap::new(),
        dir: None,
        needs: Vec::new(),
        http_port: None,
    };
    let web = ServiceSpec {
        cmd: "/usr/bin/python3".to_owned(),
        args: vec!["-m".to_owned(), "http.server".to_owned()],
        env: BTreeMap::from([("A".to_owned(), "1".to_owned())]),
        dir: Some("/srv".to_owned()),
        needs: vec!["db".parse().expect("a name")],
        http_port: NonZeroU16::new(3000),
    };
    let services = vec![
        WantedService {
            name: "db".parse().expect("a name"),
            spec: bare,
            run: ServiceRun::Stopped,
        },
        WantedService {
            name: name(),
            spec: web,
            run: ServiceRun::Started,
        },
    ];
    let set = ServiceSet {
        revision: 7,
        services,
    };
    check("services-sets.jsonl", &[], &[""], &[set]);
}

fn event(what: ServiceHappening) -> ServicesReply {
    ServicesReply::Event(ServiceEvent {
        unix_ms: 1_700_000_000_123,
        what,
    })
}

#[test]
fn replies_of_released_agents_are_understood() {
    let running = ServiceState {
        name: name(),
        status: ServiceStatus::Running,
        pid: Some(7353),
        started_unix_us: Some(1_700_000_000_123_456),
        error: String::new(),
        restart_count: 0,
        next_restart_unix_us: None,
    };
    let other = |status| ServiceState {
        status,
        pid: None,
        started_unix_us: None,
        error: "exited with status 1".to_owned(),
        restart_count: 2,
        next_restart_unix_us: Some(1_700_000_001_123_456),
        ..running.clone()
    };
    let states = [
        ServiceStatus::Stopped,
        ServiceStatus::Starting,
        ServiceStatus::Stopping,
        ServiceStatus::Failed,
    ];
    let states = [running.clone()]
        .into_iter()
        .chain(states.map(other))
        .collect();
    let data = || "GET /".to_owned();
    let replies = [
        ServicesReply::Applied,
        ServicesReply::States { states },
        event(ServiceHappening::Started { pid: 7353 }),
        event(ServiceHappening::Stdout { data: data() }),
        event(ServiceHappening::Stderr { data: data() }),
        event(ServiceHappening::Exit { code: 1 }),
        event(ServiceHappening::Stopping),
        event(ServiceHappening::Stopped { code: Some(143) }),
        event(ServiceHappening::Stopped { code: None }),
        event(ServiceHappening::Error {
            message: "read the book".to_owned(),
        }),
        event(ServiceHappening::Skipped { count: 12 }),
        ServicesReply::Listening,
        ServicesReply::Failed(Failure {
            kind: FailureKind::NoSession,
            message: "read the book".to_owned(),
        }),
    ];
    let variants = [
        "applied",
        "states",
        "event: started",
        "event: stdout",
        "event: stderr",
        "event: exit",
        "event: stopping",
        "event: stopped",
        "event: error",
        "event: skipped",
        "listening",
        "failed",
    ];
    let tags = ["reply", "event"];
    check("services-replies.jsonl", &tags, &variants, &replies);
}
