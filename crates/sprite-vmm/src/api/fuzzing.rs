//! A client that sends anything at all.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::time::Instant;

use serde_json::{Map, Value};

use super::connection::{Connection, Fate};
use super::response::Response;
use super::route;
use crate::command::Command;
use crate::config::VmConfig;
use crate::control::{Controller, Failure, FaultKind, Hypervisor, Machine, NotLoaded};
use crate::end::EndSignal;
use crate::fuzzing::Input;
use crate::memory::GuestMemory;
use crate::snapshot::CpuIdentity;

/// A host on which nothing starts.
struct NoHypervisor;

/// There is none.
enum NoMachine {}

impl Hypervisor for NoHypervisor {
    type Machine = NoMachine;

    fn cpu(&self) -> CpuIdentity {
        CpuIdentity {
            architecture: String::new(),
            vendor: String::new(),
            template: String::new(),
        }
    }

    fn boot(&self, config: &VmConfig) -> Result<NoMachine, Failure> {
        // What a snapshot would keep of it reads as it was written.
        let text = serde_json::to_string(config).expect("a configuration serializes");
        let read: VmConfig = serde_json::from_str(&text).expect("a configuration reads");
        assert_eq!(&read, config);
        Err("nothing starts here".into())
    }

    fn load(&self, _: &VmConfig, (): (), _: GuestMemory) -> Result<NoMachine, NotLoaded> {
        Err(NotLoaded::Failed("nothing is loaded here".into()))
    }
}

impl Machine for NoMachine {
    type State = ();

    fn pause(&mut self) -> Result<(), Failure> {
        match *self {}
    }

    fn resume(&mut self) -> Result<(), Failure> {
        match *self {}
    }

    fn save(&mut self) -> Result<(), Failure> {
        match *self {}
    }

    fn memory(&self) -> &GuestMemory {
        match *self {}
    }

    fn end(&self) -> Arc<EndSignal> {
        match *self {}
    }

    fn take_counts(&self) -> Map<String, Value> {
        match *self {}
    }
}

/// Whether a command opens files by names that the client chose: those of this computer are not to be touched.
fn opens_files(command: &Command) -> bool {
    match command {
        Command::SetLogger(_)
        | Command::SetMetrics(_)
        | Command::LoadSnapshot(_)
        | Command::CreateSnapshot(_) => true,
        Command::DescribeInstance
        | Command::DescribeVersion
        | Command::DescribeCapabilities
        | Command::DescribeMachine
        | Command::DescribeAll
        | Command::SetMachine(_)
        | Command::ChangeMachine(_)
        | Command::SetCpu(_)
        | Command::SetBootSource(_)
        | Command::SetDrive(_)
        | Command::SetNetworkInterface(_)
        | Command::SetVsock(_)
        | Command::SetEntropy(_)
        | Command::SetSerial(_)
        | Command::Start
        | Command::Pause
        | Command::Resume
        | Command::UpdateDrive(_)
        | Command::SendCtrlAltDel
        | Command::FlushMetrics => false,
    }
}

/// The first byte says how large the pieces are in which the rest is sent.
///
/// # Panics
/// Never for what is sent.
pub(crate) fn control(bytes: &[u8]) {
    let mut input = Input::new(bytes);
    let size = 1 << (input.byte() % 16);
    let mut controller = Controller::new(NoHypervisor, "fuzzing".to_owned());
    let (mut client, server) = UnixStream::pair().expect("two sockets");
    client.set_nonblocking(true).expect("sockets can");
    let now = Instant::now();
    let mut connection = Connection::new(server, now).expect("sockets can");
    let mut answers = vec![0; 1 << 16];
    while !input.is_empty() {
        let piece = input.bytes(size);
        if client.write(piece).is_err() {
            return;
        }
        let fate = connection.read(now, |request, body| {
            match route::command(request.method, &request.path, body) {
                Ok(command) if opens_files(&command) => Response::unavailable("left out"),
                Ok(command) => Response::of(&controller.handle(command)),
                Err(error) => Response::fault(&error.to_string(), FaultKind::Invalid),
            }
        });
        while client.read(&mut answers).is_ok_and(|len| len > 0) {}
        if fate == Fate::Over {
            return;
        }
    }
}
