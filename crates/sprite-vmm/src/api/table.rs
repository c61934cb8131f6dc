//! All that the control socket takes: one table, which requests are found by and which tests compare with the
//! published description and with what the driver sends.

use super::request::Method;
use super::route::{self, RouteError};
use crate::command::Command;

/// Where something on the socket comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Support {
    /// Firecracker's published description has it, and so do we.
    Published,
    /// Only we have it.
    Ours,
    /// The published description has it; we know its name and say that we do not do it.
    Refused,
}

/// A field of a request's body. Fields of objects inside are written as `object.field`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Field {
    /// Its name.
    pub name: &'static str,
    /// Whether a body without it is refused.
    pub required: bool,
    /// Where it comes from.
    pub support: Support,
}

/// A request that may be made.
#[derive(Debug, Clone, Copy)]
pub struct Route {
    pub(super) method: Method,
    /// Its path; a part in braces is the id of a device.
    pub path: &'static str,
    /// Where it comes from.
    pub support: Support,
    /// The fields of its body.
    pub fields: &'static [Field],
    /// A body with all fields that we accept; empty for a request without one.
    pub example: &'static str,
    pub(super) build: Build,
}

/// Makes a command of the id in the path (empty if it has none) and the body.
pub(super) type Build = fn(&str, &[u8]) -> Result<Command, RouteError>;

impl Route {
    /// The request's method.
    #[must_use]
    pub fn method(&self) -> &'static str {
        match self.method {
            Method::Get => "GET",
            Method::Put => "PUT",
            Method::Patch => "PATCH",
        }
    }
}

const fn required(name: &'static str) -> Field {
    Field {
        name,
        required: true,
        support: Support::Published,
    }
}

const fn optional(name: &'static str) -> Field {
    Field {
        name,
        required: false,
        support: Support::Published,
    }
}

const fn ours(name: &'static str) -> Field {
    Field {
        name,
        required: false,
        support: Support::Ours,
    }
}

const fn refused(name: &'static str) -> Field {
    Field {
        name,
        required: false,
        support: Support::Refused,
    }
}

const fn get(path: &'static str, support: Support, build: Build) -> Route {
    Route {
        method: Method::Get,
        path,
        support,
        fields: &[],
        example: "",
        build,
    }
}

const fn body(
    method: Method,
    path: &'static str,
    fields: &'static [Field],
    example: &'static str,
    build: Build,
) -> Route {
    Route {
        method,
        path,
        support: Support::Published,
        fields,
        example,
        build,
    }
}

const fn not_done(method: Method, path: &'static str, build: Build) -> Route {
    Route {
        method,
        path,
        support: Support::Refused,
        fields: &[],
        example: "",
        build,
    }
}

/// All requests.
pub const ROUTES: &[Route] = &[
    get("/", Support::Published, route::describe_instance),
    get("/version", Support::Published, route::describe_version),
    get("/capabilities", Support::Ours, route::describe_capabilities),
    get(
        "/machine-config",
        Support::Published,
        route::describe_machine,
    ),
    get("/vm/config", Support::Published, route::describe_all),
    body(
        Method::Put,
        "/logger",
        &[
            optional("log_path"),
            optional("level"),
            optional("show_level"),
            optional("show_log_origin"),
            refused("module"),
        ],
        r#"{"log_path":"/log","level":"Info","show_level":true,"show_log_origin":false}"#,
        route::set_logger,
    ),
    body(
        Method::Put,
        "/metrics",
        &[required("metrics_path")],
        r#"{"metrics_path":"/metrics"}"#,
        route::set_metrics,
    ),
    body(
        Method::Put,
        "/machine-config",
        &[
            required("vcpu_count"),
            required("mem_size_mib"),
            optional("track_dirty_pages"),
            optional("smt"),
            optional("cpu_template"),
            optional("huge_pages"),
        ],
        r#"{"vcpu_count":2,"mem_size_mib":256,"track_dirty_pages":true,"smt":false,"cpu_template":"None","huge_pages":"None"}"#,
        route::set_machine,
    ),
    body(
        Method::Patch,
        "/machine-config",
        &[
            optional("vcpu_count"),
            optional("mem_size_mib"),
            optional("track_dirty_pages"),
            optional("smt"),
            optional("cpu_template"),
            optional("huge_pages"),
        ],
        r#"{"vcpu_count":2,"mem_size_mib":256,"track_dirty_pages":true,"smt":false,"cpu_template":"None","huge_pages":"None"}"#,
        route::change_machine,
    ),
    body(
        Method::Put,
        "/cpu-config",
        &[
            optional("cpuid_modifiers"),
            optional("cpuid_modifiers.leaf"),
            optional("cpuid_modifiers.subleaf"),
            optional("cpuid_modifiers.flags"),
            optional("cpuid_modifiers.modifiers"),
            optional("cpuid_modifiers.modifiers.register"),
            optional("cpuid_modifiers.modifiers.bitmap"),
            refused("kvm_capabilities"),
            refused("msr_modifiers"),
            refused("reg_modifiers"),
            refused("vcpu_features"),
        ],
        r#"{"cpuid_modifiers":[{"leaf":"0x1","subleaf":"0b0","flags":0,"modifiers":[{"register":"ecx","bitmap":"0bxxxxxxxxxxxxxxxxxxxxxxxxxx0xxxxx"}]}]}"#,
        route::set_cpu,
    ),
    body(
        Method::Put,
        "/boot-source",
        &[
            required("kernel_image_path"),
            optional("initrd_path"),
            optional("boot_args"),
        ],
        r#"{"kernel_image_path":"/kernel","initrd_path":"/initrd","boot_args":"console=ttyS0"}"#,
        route::set_boot_source,
    ),
    body(
        Method::Put,
        "/drives/{drive_id}",
        &[
            required("drive_id"),
            required("is_root_device"),
            // The published description says which drives need it; ours all do.
            required("path_on_host"),
            optional("is_read_only"),
            optional("cache_type"),
            optional("io_engine"),
            refused("partuuid"),
            refused("rate_limiter"),
            refused("socket"),
        ],
        r#"{"drive_id":"disk","is_root_device":false,"path_on_host":"/disk","is_read_only":false,"cache_type":"Writeback","io_engine":"Sync"}"#,
        route::set_drive,
    ),
    body(
        Method::Patch,
        "/drives/{drive_id}",
        &[
            required("drive_id"),
            required("path_on_host"),
            refused("rate_limiter"),
        ],
        r#"{"drive_id":"disk","path_on_host":"/disk"}"#,
        route::update_drive,
    ),
    body(
        Method::Put,
        "/network-interfaces/{iface_id}",
        &[
            required("iface_id"),
            required("host_dev_name"),
            optional("guest_mac"),
            refused("mtu"),
            refused("rx_rate_limiter"),
            refused("tx_rate_limiter"),
        ],
        r#"{"iface_id":"eth0","host_dev_name":"tap0","guest_mac":"06:00:ac:10:00:02"}"#,
        route::set_network_interface,
    ),
    body(
        Method::Put,
        "/vsock",
        &[
            required("guest_cid"),
            required("uds_path"),
            optional("vsock_id"),
        ],
        r#"{"guest_cid":3,"uds_path":"/vsock","vsock_id":"vsock"}"#,
        route::set_vsock,
    ),
    body(
        Method::Put,
        "/entropy",
        &[refused("rate_limiter")],
        "{}",
        route::set_entropy,
    ),
    body(
        Method::Put,
        "/serial",
        &[optional("serial_out_path"), refused("rate_limiter")],
        r#"{"serial_out_path":"/console"}"#,
        route::set_serial,
    ),
    body(
        Method::Put,
        "/actions",
        &[required("action_type")],
        r#"{"action_type":"InstanceStart"}"#,
        route::act,
    ),
    body(
        Method::Patch,
        "/vm",
        &[required("state")],
        r#"{"state":"Paused"}"#,
        route::turn,
    ),
    body(
        Method::Put,
        "/snapshot/create",
        &[
            required("snapshot_path"),
            required("mem_file_path"),
            optional("snapshot_type"),
            ours("disk_generation"),
        ],
        r#"{"snapshot_path":"/state","mem_file_path":"/memory","snapshot_type":"Diff","disk_generation":"7"}"#,
        route::create_snapshot,
    ),
    body(
        Method::Put,
        "/snapshot/load",
        &[
            required("snapshot_path"),
            // One of the two; a test tries both.
            optional("mem_backend"),
            optional("mem_backend.backend_type"),
            optional("mem_backend.backend_path"),
            optional("mem_file_path"),
            optional("resume_vm"),
            optional("track_dirty_pages"),
            optional("enable_diff_snapshots"),
            optional("network_overrides"),
            optional("network_overrides.iface_id"),
            optional("network_overrides.host_dev_name"),
            optional("vsock_override"),
            optional("vsock_override.uds_path"),
            optional("clock_realtime"),
            ours("disk_generation"),
        ],
        r#"{"snapshot_path":"/state","mem_backend":{"backend_type":"File","backend_path":"/memory"},"resume_vm":true,"track_dirty_pages":true,"enable_diff_snapshots":true,"network_overrides":[{"iface_id":"eth0","host_dev_name":"tap1"}],"vsock_override":{"uds_path":"/vsock"},"clock_realtime":false,"disk_generation":"7"}"#,
        route::load_snapshot,
    ),
    not_done(Method::Get, "/balloon", route::no_balloon),
    not_done(Method::Put, "/balloon", route::no_balloon),
    not_done(Method::Patch, "/balloon", route::no_balloon),
    not_done(Method::Get, "/balloon/statistics", route::no_balloon),
    not_done(Method::Patch, "/balloon/statistics", route::no_balloon),
    not_done(Method::Get, "/balloon/hinting/status", route::no_balloon),
    not_done(Method::Patch, "/balloon/hinting/start", route::no_balloon),
    not_done(Method::Patch, "/balloon/hinting/stop", route::no_balloon),
    not_done(Method::Get, "/mmds", route::no_mmds),
    not_done(Method::Put, "/mmds", route::no_mmds),
    not_done(Method::Patch, "/mmds", route::no_mmds),
    not_done(Method::Put, "/mmds/config", route::no_mmds),
    not_done(Method::Put, "/pmem/{id}", route::no_pmem),
    not_done(Method::Patch, "/pmem/{id}", route::no_pmem),
    not_done(Method::Get, "/hotplug/memory", route::no_hotplug),
    not_done(Method::Put, "/hotplug/memory", route::no_hotplug),
    not_done(Method::Patch, "/hotplug/memory", route::no_hotplug),
    not_done(
        Method::Patch,
        "/network-interfaces/{iface_id}",
        route::no_rate_limits,
    ),
];
