//! From a request to a command.

use serde::Deserialize;
use serde::de::DeserializeOwned;

use super::request::Method;
use super::table::ROUTES;
use crate::command::Command;
use crate::config::DeviceId;

/// A request that is no command.
#[derive(Debug, thiserror::Error)]
pub(super) enum RouteError {
    #[error("there is no {method:?} {path}")]
    Unknown { method: Method, path: String },
    #[error("a request of this kind has no body")]
    HasBody,
    #[error("the body is not valid: {0}")]
    Body(serde_json::Error),
    #[error("the id in the path is {path}, the one in the body {body}")]
    IdMismatch { path: String, body: DeviceId },
    #[error("{what} is not supported: {instead}")]
    NotSupported {
        what: &'static str,
        instead: &'static str,
    },
}

impl RouteError {
    /// Whether the request is one, and only this program does not do it.
    pub(super) fn is_refusal(&self) -> bool {
        match self {
            RouteError::NotSupported { .. } => true,
            RouteError::Unknown { .. }
            | RouteError::HasBody
            | RouteError::Body(_)
            | RouteError::IdMismatch { .. } => false,
        }
    }
}

/// The command that a request is.
pub(super) fn command(method: Method, path: &str, body: &[u8]) -> Result<Command, RouteError> {
    for route in ROUTES.iter().filter(|route| route.method == method) {
        if let Some(id) = id_in(path, route.path) {
            return (route.build)(id, body);
        }
    }
    Err(RouteError::Unknown {
        method,
        // As much of it as helps whoever made a mistake.
        path: path.chars().take(100).collect(),
    })
}

/// If `path` is of the form of `pattern`: what stands in place of its braces.
fn id_in<'a>(path: &'a str, pattern: &str) -> Option<&'a str> {
    match pattern.split_once('{') {
        None => (path == pattern).then_some(""),
        Some((before, _)) => path
            .strip_prefix(before)
            .filter(|id| !id.is_empty() && !id.contains('/')),
    }
}

fn parse<T: DeserializeOwned>(body: &[u8]) -> Result<T, RouteError> {
    serde_json::from_slice(body).map_err(RouteError::Body)
}

fn without_body(command: Command, body: &[u8]) -> Result<Command, RouteError> {
    match body.is_empty() {
        true => Ok(command),
        false => Err(RouteError::HasBody),
    }
}

fn same_id(path: &str, body: &DeviceId) -> Result<(), RouteError> {
    if path == body.as_str() {
        return Ok(());
    }
    Err(RouteError::IdMismatch {
        path: path.chars().take(100).collect(),
        body: body.clone(),
    })
}

type Built = Result<Command, RouteError>;

pub(super) fn describe_instance(_: &str, body: &[u8]) -> Built {
    without_body(Command::DescribeInstance, body)
}

pub(super) fn describe_version(_: &str, body: &[u8]) -> Built {
    without_body(Command::DescribeVersion, body)
}

pub(super) fn describe_capabilities(_: &str, body: &[u8]) -> Built {
    without_body(Command::DescribeCapabilities, body)
}

pub(super) fn describe_machine(_: &str, body: &[u8]) -> Built {
    without_body(Command::DescribeMachine, body)
}

pub(super) fn describe_all(_: &str, body: &[u8]) -> Built {
    without_body(Command::DescribeAll, body)
}

pub(super) fn set_logger(_: &str, body: &[u8]) -> Built {
    Ok(Command::SetLogger(parse(body)?))
}

pub(super) fn set_metrics(_: &str, body: &[u8]) -> Built {
    Ok(Command::SetMetrics(parse(body)?))
}

pub(super) fn set_machine(_: &str, body: &[u8]) -> Built {
    Ok(Command::SetMachine(parse(body)?))
}

pub(super) fn change_machine(_: &str, body: &[u8]) -> Built {
    Ok(Command::ChangeMachine(parse(body)?))
}

pub(super) fn set_cpu(_: &str, body: &[u8]) -> Built {
    Ok(Command::SetCpu(parse(body)?))
}

pub(super) fn set_boot_source(_: &str, body: &[u8]) -> Built {
    Ok(Command::SetBootSource(parse(body)?))
}

pub(super) fn set_drive(id: &str, body: &[u8]) -> Built {
    let drive: crate::config::Drive = parse(body)?;
    same_id(id, &drive.drive_id)?;
    Ok(Command::SetDrive(drive))
}

pub(super) fn update_drive(id: &str, body: &[u8]) -> Built {
    let update: crate::config::DriveUpdate = parse(body)?;
    same_id(id, &update.drive_id)?;
    Ok(Command::UpdateDrive(update))
}

pub(super) fn set_network_interface(id: &str, body: &[u8]) -> Built {
    let interface: crate::config::NetworkInterface = parse(body)?;
    same_id(id, &interface.iface_id)?;
    Ok(Command::SetNetworkInterface(interface))
}

pub(super) fn set_vsock(_: &str, body: &[u8]) -> Built {
    Ok(Command::SetVsock(parse(body)?))
}

pub(super) fn set_entropy(_: &str, body: &[u8]) -> Built {
    Ok(Command::SetEntropy(parse(body)?))
}

pub(super) fn set_serial(_: &str, body: &[u8]) -> Built {
    Ok(Command::SetSerial(parse(body)?))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Action {
    action_type: ActionType,
}

#[derive(Deserialize)]
enum ActionType {
    InstanceStart,
    FlushMetrics,
    SendCtrlAltDel,
}

pub(super) fn act(_: &str, body: &[u8]) -> Built {
    let action: Action = parse(body)?;
    Ok(match action.action_type {
        ActionType::InstanceStart => Command::Start,
        ActionType::FlushMetrics => Command::FlushMetrics,
        ActionType::SendCtrlAltDel => Command::SendCtrlAltDel,
    })
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Turn {
    state: TurnTo,
}

#[derive(Deserialize)]
enum TurnTo {
    Paused,
    Resumed,
}

pub(super) fn turn(_: &str, body: &[u8]) -> Built {
    let turn: Turn = parse(body)?;
    Ok(match turn.state {
        TurnTo::Paused => Command::Pause,
        TurnTo::Resumed => Command::Resume,
    })
}

pub(super) fn create_snapshot(_: &str, body: &[u8]) -> Built {
    Ok(Command::CreateSnapshot(parse(body)?))
}

pub(super) fn load_snapshot(_: &str, body: &[u8]) -> Built {
    Ok(Command::LoadSnapshot(parse(body)?))
}

pub(super) fn no_balloon(_: &str, _: &[u8]) -> Built {
    Err(RouteError::NotSupported {
        what: "a balloon",
        instead: "memory that a guest does not use goes to disk with it when it is snapshotted",
    })
}

pub(super) fn no_mmds(_: &str, _: &[u8]) -> Built {
    Err(RouteError::NotSupported {
        what: "a metadata service",
        instead: "talk to a program in the guest over vsock",
    })
}

pub(super) fn no_pmem(_: &str, _: &[u8]) -> Built {
    Err(RouteError::NotSupported {
        what: "a pmem device",
        instead: "use a drive",
    })
}

pub(super) fn no_hotplug(_: &str, _: &[u8]) -> Built {
    Err(RouteError::NotSupported {
        what: "memory hotplug",
        instead: "start a machine with more memory",
    })
}

pub(super) fn no_rate_limits(_: &str, _: &[u8]) -> Built {
    Err(RouteError::NotSupported {
        what: "a rate limit of a network interface",
        instead: "shape the traffic of the tap on the host",
    })
}
