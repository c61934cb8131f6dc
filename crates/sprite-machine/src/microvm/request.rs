//! All that the driver asks of a monitor, in Firecracker's published form.
//!
//! Source: `firecracker.yaml` of Firecracker 1.12 to 1.16, but for what only our monitor takes.

use serde::Serialize;
use serde_json::{Value, json};

/// Names of files in the jail: the same in every machine, for they are part of its snapshots.
pub(super) const KERNEL: &str = "kernel";
pub(super) const INITRAMFS: &str = "initramfs";
pub(super) const MODULES: &str = "modules";
pub(super) const DISK: &str = "disk";
pub(super) const SNAPSHOT: &str = "snapshot";
/// Names of sockets in the jail's `/run`.
pub(super) const API_SOCKET: &str = "api.sock";
pub(super) const VSOCK: &str = "vsock";

/// The machine's tap in its network namespace. Source: sprite-net.
const TAP: &str = "tap0";
/// Of all machines: each has a host of its own to talk to.
const GUEST_CID: u32 = 3;

/// One request.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Request {
    pub(super) method: &'static str,
    pub(super) path: String,
    /// Nothing for requests without a body.
    pub(super) body: Option<Value>,
}

fn put(path: impl Into<String>, body: impl Serialize) -> Request {
    request("PUT", path, &body)
}

fn request(method: &'static str, path: impl Into<String>, body: &impl Serialize) -> Request {
    Request {
        method,
        path: path.into(),
        body: Some(serde_json::to_value(body).expect("bodies have texts for keys")),
    }
}

fn get(path: &str) -> Request {
    Request {
        method: "GET",
        path: path.to_owned(),
        body: None,
    }
}

/// What a machine that boots is made of.
#[derive(Debug, Clone)]
pub(super) struct Hardware {
    pub(super) vcpus: u32,
    pub(super) memory_mib: u32,
    pub(super) kernel_parameters: String,
    pub(super) mac: [u8; 6],
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Cache {
    /// A flush of the guest reaches the medium.
    Writeback,
    /// There is nothing to flush.
    Unsafe,
}

fn drive(name: &str, read_only: bool, cache: Cache) -> Request {
    let cache = match cache {
        Cache::Writeback => "Writeback",
        Cache::Unsafe => "Unsafe",
    };
    let body = json!({
        "drive_id": name,
        "path_on_host": format!("/{name}"),
        "is_root_device": false,
        "is_read_only": read_only,
        "cache_type": cache,
    });
    put(format!("/drives/{name}"), body)
}

/// The requests that make a machine, in their order; the last one starts it.
pub(super) fn boot(hardware: &Hardware) -> Vec<Request> {
    let [a, b, c, d, e, f] = hardware.mac;
    vec![
        put(
            "/machine-config",
            json!({
                "vcpu_count": hardware.vcpus,
                "mem_size_mib": hardware.memory_mib,
            }),
        ),
        put(
            "/boot-source",
            json!({
                "kernel_image_path": format!("/{KERNEL}"),
                "initrd_path": format!("/{INITRAMFS}"),
                "boot_args": hardware.kernel_parameters,
            }),
        ),
        drive(DISK, false, Cache::Writeback),
        drive(MODULES, true, Cache::Unsafe),
        put(
            "/network-interfaces/eth0",
            json!({
                "iface_id": "eth0",
                "guest_mac": format!("{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{f:02x}"),
                "host_dev_name": TAP,
            }),
        ),
        put(
            "/vsock",
            json!({
                "guest_cid": GUEST_CID,
                "uds_path": format!("/run/{VSOCK}"),
            }),
        ),
        put("/entropy", json!({})),
        put("/actions", json!({ "action_type": "InstanceStart" })),
    ]
}

/// Stops every vCPU where it is.
pub(super) fn pause() -> Request {
    request("PATCH", "/vm", &json!({ "state": "Paused" }))
}

/// Lets them run on.
pub(super) fn resume() -> Request {
    request("PATCH", "/vm", &json!({ "state": "Resumed" }))
}

/// How much of the memory a snapshot writes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Extent {
    /// All of it.
    Full,
    /// What changed since the snapshot that the machine was made from, into that snapshot's file; all of it if it
    /// was made from none. Only our monitor.
    Changes,
}

fn state_file() -> String {
    format!("/{SNAPSHOT}/state")
}

fn memory_file() -> String {
    format!("/{SNAPSHOT}/memory")
}

/// Writes a machine that stands still to its files. `generation` names the state of the disk that belongs to it,
/// for a monitor that keeps it.
pub(super) fn create_snapshot(extent: Extent, generation: Option<&str>) -> Request {
    let kind = match extent {
        Extent::Full => "Full",
        Extent::Changes => "Diff",
    };
    let mut body = json!({
        "snapshot_type": kind,
        "snapshot_path": state_file(),
        "mem_file_path": memory_file(),
    });
    if let Some(generation) = generation {
        body["disk_generation"] = generation.into();
    }
    put("/snapshot/create", body)
}

/// Makes the machine of a snapshot, standing still.
pub(super) fn load_snapshot(generation: Option<&str>) -> Request {
    let mut body = json!({
        "snapshot_path": state_file(),
        "mem_backend": { "backend_type": "File", "backend_path": memory_file() },
        "resume_vm": false,
    });
    if let Some(generation) = generation {
        body["disk_generation"] = generation.into();
    }
    put("/snapshot/load", body)
}

/// What the monitor can do besides. Firecracker does not know the question.
pub(super) fn capabilities() -> Request {
    get("/capabilities")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every request that the driver can make, with all fields that it can send.
    fn all() -> Vec<Request> {
        let hardware = Hardware {
            vcpus: 2,
            memory_mib: 512,
            kernel_parameters: "console=ttyS0".to_owned(),
            mac: [2, 0, 0, 0, 0, 0xfe],
        };
        let mut all = boot(&hardware);
        all.extend([
            pause(),
            resume(),
            create_snapshot(Extent::Full, None),
            load_snapshot(None),
        ]);
        all
    }

    /// Methods, paths and fields of the published description, as far as the driver uses them: `!` marks fields
    /// that must be there. Source: `firecracker.yaml` of Firecracker 1.12.
    const PUBLISHED: &[(&str, &str, &[&str])] = &[
        ("PUT", "/machine-config", &["vcpu_count!", "mem_size_mib!"]),
        (
            "PUT",
            "/boot-source",
            &["kernel_image_path!", "initrd_path", "boot_args"],
        ),
        (
            "PUT",
            "/drives/{drive_id}",
            &[
                "drive_id!",
                "is_root_device!",
                "path_on_host",
                "is_read_only",
                "cache_type",
            ],
        ),
        (
            "PUT",
            "/network-interfaces/{iface_id}",
            &["iface_id!", "host_dev_name!", "guest_mac"],
        ),
        ("PUT", "/vsock", &["guest_cid!", "uds_path!"]),
        ("PUT", "/entropy", &[]),
        ("PUT", "/actions", &["action_type!"]),
        ("PATCH", "/vm", &["state!"]),
        (
            "PUT",
            "/snapshot/create",
            &["mem_file_path!", "snapshot_path!", "snapshot_type"],
        ),
        (
            "PUT",
            "/snapshot/load",
            &["snapshot_path!", "mem_backend", "resume_vm"],
        ),
    ];

    #[test]
    fn every_request_is_one_of_the_published_description() {
        let matches = |published: &str, path: &str| match published.split_once('{') {
            Some((before, _)) => path
                .strip_prefix(before)
                .is_some_and(|id| !id.is_empty() && !id.contains('/')),
            None => published == path,
        };
        let all = all();
        for request in &all {
            let (_, _, fields) = PUBLISHED
                .iter()
                .find(|(method, path, _)| *method == request.method && matches(path, &request.path))
                .unwrap_or_else(|| panic!("{request:?} is not published"));
            let body = request.body.as_ref().and_then(Value::as_object);
            let body = body.expect("all of them have one");
            for name in body.keys() {
                let known = fields
                    .iter()
                    .any(|field| field.trim_end_matches('!') == name);
                assert!(known, "{} has no field {name}", request.path);
            }
            for field in fields.iter().filter_map(|field| field.strip_suffix('!')) {
                assert!(body.contains_key(field), "{} needs {field}", request.path);
            }
        }
        assert_eq!(
            all[4].body.as_ref().map(|body| body["guest_mac"].clone()),
            Some("02:00:00:00:00:fe".into())
        );
    }

    #[test]
    fn the_disk_is_the_first_block_device_and_the_modules_the_second() {
        let drives: Vec<String> = all()
            .into_iter()
            .filter_map(|request| request.path.strip_prefix("/drives/").map(str::to_owned))
            .collect();
        assert_eq!(drives, [DISK, MODULES]);
    }

    #[test]
    fn what_only_our_monitor_takes_is_sent_to_it_alone() {
        for request in all() {
            let body = request.body.expect("all of them have one");
            assert!(body.get("disk_generation").is_none(), "{}", request.path);
        }
        let ours = create_snapshot(Extent::Changes, Some("g1")).body;
        assert_eq!(ours.expect("a body")["disk_generation"], "g1");
    }
}
