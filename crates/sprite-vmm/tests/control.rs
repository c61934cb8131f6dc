//! Commands over the control socket, against every state of a machine.

mod harness;

use std::os::unix::fs::FileTypeExt;

use harness::{Client, Program, request};
use proptest::prelude::*;
use serde_json::{Value, json};
use sprite_vmm::api::{ROUTES, Support};
use sprite_vmm::end::End;

fn start() -> Value {
    json!({"action_type": "InstanceStart"})
}

#[test]
fn a_machine_starts_pauses_resumes_and_ends_with_the_program() {
    let mut program = Program::start();
    assert_eq!(program.state(), "Not started");
    program.boot();
    assert_eq!(program.state(), "Running");
    program.pause();
    assert_eq!(program.state(), "Paused");
    program.pause();
    program.resume();
    program.resume();
    assert_eq!(program.state(), "Running");
    assert_eq!(program.stage.log(), ["boot", "pause", "resume"]);
    assert_eq!(program.end(End::PowerOff), End::PowerOff);
}

#[test]
fn the_program_ends_with_its_guest_though_a_client_is_connected() {
    let mut program = Program::start();
    program.boot();
    let mut client = Client::connect(&program.socket);
    assert_eq!(program.end(End::Reset), End::Reset);
    // Nobody is left who could do what is asked now.
    client
        .send(request("GET", "/", "").as_bytes())
        .expect("the socket is still there");
    assert_eq!(client.receive().map(|(status, _)| status), Some(503));
}

#[test]
fn what_belongs_before_the_start_is_refused_afterwards_and_the_other_way_round() {
    let mut program = Program::start();
    for (path, method, body) in [
        ("/vm", "PATCH", json!({"state": "Paused"})),
        ("/vm", "PATCH", json!({"state": "Resumed"})),
        ("/actions", "PUT", json!({"action_type": "FlushMetrics"})),
        ("/actions", "PUT", json!({"action_type": "SendCtrlAltDel"})),
        ("/snapshot/create", "PUT", program.snapshot_body("Full")),
    ] {
        let (kind, message) = program.refused(method, path, &body);
        assert_eq!(kind, "untimely", "{path}: {message}");
    }
    program.boot();
    let before: Vec<_> = ROUTES
        .iter()
        .filter(|route| route.support == Support::Published && !route.example.is_empty())
        .filter(|route| !["/actions", "/vm", "/snapshot/create"].contains(&route.path))
        .filter(|route| (route.method(), route.path) != ("PATCH", "/drives/{drive_id}"))
        .collect();
    assert!(before.len() > 10, "the table is not empty");
    for route in before {
        let body = serde_json::from_str(route.example).expect("examples are JSON");
        let path = route
            .path
            .replace("{drive_id}", "disk")
            .replace("{iface_id}", "eth0");
        let (kind, message) = program.refused(route.method(), &path, &body);
        assert_eq!(kind, "untimely", "{path}: {message}");
    }
    let (kind, _) = program.refused("PUT", "/actions", &start());
    assert_eq!(kind, "untimely");
    let body = program.snapshot_body("Full");
    let (_, message) = program.refused("PUT", "/snapshot/create", &body);
    assert_eq!(message, "the machine runs: pause it first");
    assert_eq!(program.stage.log(), ["boot"]);
}

#[test]
fn a_start_that_fails_may_be_tried_again() {
    let mut program = Program::start();
    let (_, message) = program.refused("PUT", "/actions", &start());
    assert!(message.contains("PUT /boot-source"), "{message}");
    program.done(
        "PUT",
        "/boot-source",
        &json!({"kernel_image_path": "/kernel"}),
    );
    program.stage.see(|seen| seen.failing.push("boot"));
    let (kind, message) = program.refused("PUT", "/actions", &start());
    assert_eq!(kind, "failed");
    assert_eq!(message, "start the machine: boot was made to fail");
    assert_eq!(program.state(), "Not started");
    program.stage.see(|seen| seen.failing.clear());
    program.done("PUT", "/actions", &start());
}

#[test]
fn a_pause_that_fails_leaves_the_machine_running() {
    let mut program = Program::start();
    program.boot();
    program.stage.see(|seen| seen.failing.push("pause"));
    let (kind, _) = program.refused("PATCH", "/vm", &json!({"state": "Paused"}));
    assert_eq!(kind, "failed");
    assert_eq!(program.state(), "Running");
}

#[test]
fn the_machine_is_made_as_it_was_described() {
    let mut program = Program::start();
    let disk = |id: &str, root: bool| {
        json!({"drive_id": id, "path_on_host": format!("/{id}"), "is_root_device": root,
            "is_read_only": root, "cache_type": "Writeback"})
    };
    program.done("PUT", "/drives/data", &disk("data", false));
    program.done("PUT", "/drives/root", &disk("root", true));
    program.done("PUT", "/drives/data", &disk("data", false));
    program.done(
        "PUT",
        "/network-interfaces/eth0",
        &json!({"iface_id": "eth0", "host_dev_name": "tap0", "guest_mac": "06:00:AC:10:00:02"}),
    );
    program.done(
        "PUT",
        "/vsock",
        &json!({"guest_cid": 3, "uds_path": "/vsock"}),
    );
    program.done("PUT", "/entropy", &json!({}));
    program.done("PATCH", "/machine-config", &json!({"mem_size_mib": 2}));
    program.done(
        "PUT",
        "/boot-source",
        &json!({"kernel_image_path": "/kernel", "initrd_path": "/initrd", "boot_args": "quiet"}),
    );
    program.done("PUT", "/actions", &start());
    let config = program
        .stage
        .see(|seen| seen.config.clone())
        .expect("it booted");
    assert_eq!(config.machine_config.mem_size_mib.get(), 2);
    assert_eq!(config.machine_config.vcpu_count.get(), 1);
    let ids: Vec<_> = config
        .drives
        .iter()
        .map(|drive| drive.drive_id.as_str())
        .collect();
    assert_eq!(ids, ["root", "data"]);
    assert_eq!(config.command_line(), "quiet root=/dev/vda ro");
    let (status, all) = program.ask("GET", "/vm/config", &Value::Null);
    assert_eq!(status, 200);
    assert_eq!(
        all["network-interfaces"][0]["guest_mac"],
        "06:00:ac:10:00:02"
    );
    assert_eq!(all["boot-source"]["initrd_path"], "/initrd");
    let (_, machine) = program.ask("GET", "/machine-config", &Value::Null);
    assert_eq!(
        machine,
        json!({"vcpu_count": 1, "mem_size_mib": 2, "smt": false, "track_dirty_pages": false,
            "cpu_template": "None", "huge_pages": "None"})
    );
}

#[test]
fn things_that_do_not_go_together_are_refused() {
    let mut program = Program::start();
    let root = |id: &str| json!({"drive_id": id, "path_on_host": "/d", "is_root_device": true});
    program.done("PUT", "/drives/a", &root("a"));
    let (_, message) = program.refused("PUT", "/drives/b", &root("b"));
    assert_eq!(message, "drive a is the root device already");
    let (_, message) = program.refused("PUT", "/drives/c", &root("b"));
    assert_eq!(message, "the id in the path is c, the one in the body b");
    let card = |id: &str| json!({"iface_id": id, "host_dev_name": "tap0"});
    program.done("PUT", "/network-interfaces/eth0", &card("eth0"));
    let (_, message) = program.refused("PUT", "/network-interfaces/eth1", &card("eth1"));
    assert_eq!(
        message,
        "network interface eth0 has this host_dev_name already"
    );
    for number in 0..8 {
        let id = format!("d{number}");
        let disk = json!({"drive_id": id, "path_on_host": "/d", "is_root_device": false});
        let (status, answer) = program.ask("PUT", &format!("/drives/{id}"), &disk);
        match number {
            0..7 => assert_eq!(status, 204),
            _ => assert_eq!(answer["fault_message"], "a machine has at most 8 drives"),
        }
    }
}

#[test]
fn counts_go_to_their_file_line_by_line_and_at_the_end() {
    let mut program = Program::start();
    let path = program.path("metrics");
    program.done("PUT", "/metrics", &json!({"metrics_path": path}));
    let (kind, _) = program.refused("PUT", "/metrics", &json!({"metrics_path": path}));
    assert_eq!(kind, "untimely");
    program.boot();
    program.done("PUT", "/actions", &json!({"action_type": "FlushMetrics"}));
    let _files = std::sync::Arc::clone(&program.directory);
    program.end(End::PowerOff);
    let text = std::fs::read_to_string(&path).expect("the file is there");
    let lines: Vec<Value> = text
        .lines()
        .map(|line| serde_json::from_str(line).expect("a line is JSON"))
        .collect();
    assert_eq!(lines.len(), 2);
    assert_eq!(lines[0]["vsock"]["rx_bytes_count"], 5);
}

#[test]
fn every_field_of_the_table_is_taken_and_no_other() {
    for route in ROUTES.iter().filter(|route| !route.example.is_empty()) {
        let example: Value = serde_json::from_str(route.example).expect("examples are JSON");
        let path = route
            .path
            .replace("{drive_id}", "disk")
            .replace("{iface_id}", "eth0");
        let asked = |body: &Value| {
            let mut program = Program::start();
            // Not every request can be done to a machine that is not started, but what is wrong with a body
            // is said first.
            let (status, answer) = program.ask(route.method(), &path, body);
            match status {
                204 => None,
                _ => Some((
                    answer["fault_kind"].as_str().expect("a kind").to_owned(),
                    answer["fault_message"]
                        .as_str()
                        .expect("a message")
                        .to_owned(),
                )),
            }
        };
        let is_body_wrong = |fault: &Option<(String, String)>| {
            fault
                .as_ref()
                .is_some_and(|(_, message)| message.starts_with("the body is not valid"))
        };
        assert!(
            !is_body_wrong(&asked(&example)),
            "{path}: {:?}",
            asked(&example)
        );
        let mut unknown = example.clone();
        unknown["nobody_knows_this"] = json!(1);
        assert!(
            is_body_wrong(&asked(&unknown)),
            "{path} takes what nobody knows"
        );
        let names = names_in(&example, "");
        for field in route.fields {
            match field.support {
                Support::Published | Support::Ours => {
                    let alternative =
                        field.name == "mem_file_path" && route.path == "/snapshot/load";
                    assert!(
                        names.contains(&field.name.to_owned()) || alternative,
                        "the example of {path} has {}",
                        field.name
                    );
                }
                Support::Refused => {
                    let mut with = example.clone();
                    with[field.name] = json!([{}]);
                    let (_, message) = asked(&with).expect("it is refused");
                    assert!(message.contains("not supported"), "{path}: {message}");
                }
            }
            if field.required {
                let mut without = example.clone();
                without
                    .as_object_mut()
                    .expect("an object")
                    .remove(field.name);
                assert!(
                    is_body_wrong(&asked(&without)),
                    "{path} without {}",
                    field.name
                );
            }
        }
        for name in names {
            assert!(
                route.fields.iter().any(|field| field.name == name),
                "the table has {name} of {path}"
            );
        }
    }
}

fn names_in(value: &Value, before: &str) -> Vec<String> {
    match value {
        Value::Object(fields) => fields
            .iter()
            .flat_map(|(name, value)| {
                let name = format!("{before}{name}");
                let mut names = names_in(value, &format!("{name}."));
                names.push(name);
                names
            })
            .collect(),
        Value::Array(list) => list
            .iter()
            .flat_map(|value| names_in(value, before))
            .collect(),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => Vec::new(),
    }
}

#[test]
fn what_we_do_not_do_is_said_by_its_name() {
    let mut program = Program::start();
    for route in ROUTES
        .iter()
        .filter(|route| route.support == Support::Refused)
    {
        let path = route
            .path
            .replace("{iface_id}", "eth0")
            .replace("{id}", "a");
        let (kind, message) = program.refused(route.method(), &path, &json!({}));
        assert_eq!(kind, "not_supported", "{path}: {message}");
    }
    let (kind, message) = program.refused("PUT", "/nowhere", &json!({}));
    assert_eq!(
        (kind.as_str(), message.as_str()),
        ("invalid", "there is no Put /nowhere")
    );
    let (_, message) = program.refused("PUT", "/vsock", &json!({"guest_cid": 2, "uds_path": "/v"}));
    assert!(
        message.contains("guest_cid is 2, allowed are 3 to 4294967294"),
        "{message}"
    );
}

#[test]
fn several_requests_in_one_write_are_answered_in_their_order() {
    let program = Program::start();
    let mut client = Client::connect(&program.socket);
    let mut bytes = request("GET", "/version", "");
    bytes.push_str(&request("PUT", "/nowhere", "{}"));
    bytes.push_str(&request("GET", "/", ""));
    client.send(bytes.as_bytes()).expect("the server takes it");
    let statuses: Vec<_> = std::iter::repeat_with(|| client.receive())
        .take(3)
        .map(|response| response.map(|(status, _)| status))
        .collect();
    assert_eq!(statuses, [Some(200), Some(400), Some(200)]);
}

#[test]
fn a_client_that_waits_to_be_told_to_go_on_is_told() {
    let program = Program::start();
    let mut client = Client::connect(&program.socket);
    let body = r#"{"guest_cid":3,"uds_path":"/vsock"}"#;
    let head = format!(
        "PUT /vsock HTTP/1.1\r\nExpect: 100-continue\r\nContent-Length: {}\r\n\r\n",
        body.len()
    );
    client.send(head.as_bytes()).expect("the server takes it");
    assert_eq!(client.receive(), Some((100, Value::Null)));
    client.send(body.as_bytes()).expect("the server takes it");
    assert_eq!(client.receive(), Some((204, Value::Null)));
}

#[test]
fn a_client_that_stops_in_the_middle_does_not_stop_the_others() {
    let mut program = Program::start();
    let mut stuck: Vec<Client> = (0..8).map(|_| Client::connect(&program.socket)).collect();
    for client in &mut stuck {
        client
            .send(b"PUT /vsock HTTP/1.1\r\nContent-Length: 100\r\n\r\n{")
            .expect("the server takes it");
    }
    assert_eq!(program.state(), "Not started");
}

#[test]
fn a_new_client_takes_the_place_of_an_idle_one() {
    let mut program = Program::start();
    program.state();
    let mut clients = Vec::new();
    for _ in 0..30 {
        let mut client = Client::connect(&program.socket);
        client
            .send(request("GET", "/version", "").as_bytes())
            .expect("the server takes it");
        assert_eq!(client.receive().map(|(status, _)| status), Some(200));
        clients.push(client);
    }
    assert_eq!(clients[0].receive(), None, "the oldest had to go");
}

#[test]
fn the_socket_is_not_taken_from_another_program() {
    let program = Program::start();
    assert!(sprite_vmm::api::Server::bind(&program.socket).is_err());
    let kind = std::fs::metadata(&program.socket)
        .expect("it is there")
        .file_type();
    assert!(kind.is_socket());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn any_bytes_on_the_socket_leave_the_program_as_it_was(
        parts in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 1..300), 1..5),
    ) {
        let mut program = Program::start();
        let mut client = Client::connect(&program.socket);
        for part in parts {
            // The server may have closed already.
            let _ = client.send(&part);
        }
        drop(client);
        prop_assert_eq!(program.state(), "Not started");
    }

    #[test]
    fn any_json_to_any_path_is_answered(
        route in 0..ROUTES.len(),
        name in "[a-z_]{1,20}",
        text in ".{0,40}",
        number in any::<i64>(),
    ) {
        let route = &ROUTES[route];
        let path = route.path.replace("{drive_id}", "disk").replace("{iface_id}", "eth0");
        let mut body = serde_json::from_str(route.example).unwrap_or_else(|_| json!({}));
        let field = route.fields.first().map_or(name.as_str(), |field| field.name);
        body[field] = json!(text);
        body[name.as_str()] = json!(number);
        let mut program = Program::start();
        let (status, _) = program.ask(route.method(), &path, &body);
        prop_assert!(status == 400 || status == 204, "{}", status);
        prop_assert_eq!(program.state(), "Not started");
    }
}
