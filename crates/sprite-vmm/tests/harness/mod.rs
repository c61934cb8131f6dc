//! A control socket over a machine that is a fake but for its memory.
#![allow(dead_code, reason = "each test file uses its part of it")]

pub mod vmm;

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use sprite_vmm::api::Server;
use sprite_vmm::config::VmConfig;
use sprite_vmm::control::{Controller, Failure, Hypervisor, Machine, NotLoaded, desk};
use sprite_vmm::end::{End, EndSignal};
use sprite_vmm::memory::{self, GuestMemory};
use sprite_vmm::snapshot::CpuIdentity;
use tempfile::TempDir;

/// What a test sees of the machine and can make it do.
#[derive(Clone, Default)]
pub struct Stage(Arc<Mutex<Seen>>);

#[derive(Default)]
pub struct Seen {
    pub log: Vec<String>,
    pub memory: Option<GuestMemory>,
    pub end: Option<Arc<EndSignal>>,
    pub config: Option<VmConfig>,
    /// Steps that fail.
    pub failing: Vec<&'static str>,
    /// Stands for registers.
    pub register: u64,
    pub cpu_template: Option<&'static str>,
}

impl Stage {
    pub fn see<T>(&self, look: impl FnOnce(&mut Seen) -> T) -> T {
        look(&mut self.0.lock().expect("no test panics while it looks"))
    }

    fn step(&self, step: &'static str) -> Result<(), Failure> {
        self.see(|seen| {
            seen.log.push(step.to_owned());
            match seen.failing.contains(&step) {
                true => Err(format!("{step} was made to fail").into()),
                false => Ok(()),
            }
        })
    }

    fn machine(&self, memory: GuestMemory, config: &VmConfig) -> Result<FakeMachine, Failure> {
        let end = Arc::new(EndSignal::new()?);
        self.see(|seen| {
            seen.memory = Some(memory.clone());
            seen.end = Some(Arc::clone(&end));
            seen.config = Some(config.clone());
        });
        Ok(FakeMachine {
            stage: self.clone(),
            memory,
            end,
        })
    }

    pub fn log(&self) -> Vec<String> {
        self.see(|seen| seen.log.clone())
    }

    pub fn write(&self, address: u64, bytes: &[u8]) {
        use vm_memory::{Bytes, GuestAddress};
        let memory = self.see(|seen| seen.memory.clone()).expect("a machine");
        memory
            .write_slice(bytes, GuestAddress(address))
            .expect("an address of the machine");
    }

    pub fn read(&self, address: u64, length: usize) -> Vec<u8> {
        use vm_memory::{Bytes, GuestAddress};
        let memory = self.see(|seen| seen.memory.clone()).expect("a machine");
        let mut bytes = vec![0; length];
        memory
            .read_slice(&mut bytes, GuestAddress(address))
            .expect("an address of the machine");
        bytes
    }
}

pub struct FakeHypervisor(pub Stage);

pub struct FakeMachine {
    stage: Stage,
    memory: GuestMemory,
    end: Arc<EndSignal>,
}

#[derive(Serialize, Deserialize)]
pub struct FakeState {
    register: u64,
}

impl Hypervisor for FakeHypervisor {
    type Machine = FakeMachine;

    fn cpu(&self) -> CpuIdentity {
        CpuIdentity {
            architecture: "x86_64".to_owned(),
            vendor: "Testing".to_owned(),
            template: self
                .0
                .see(|seen| seen.cpu_template)
                .unwrap_or("test v1")
                .to_owned(),
        }
    }

    fn boot(&self, config: &VmConfig) -> Result<FakeMachine, Failure> {
        self.0.step("boot")?;
        let memory = memory::anonymous(config.machine_config.mem_size_mib.bytes())?;
        self.0.machine(memory, config)
    }

    fn load(
        &self,
        config: &VmConfig,
        state: FakeState,
        memory: GuestMemory,
    ) -> Result<FakeMachine, NotLoaded> {
        self.0.step("fit").map_err(NotLoaded::Unfit)?;
        self.0.step("load").map_err(NotLoaded::Failed)?;
        self.0.see(|seen| seen.register = state.register);
        self.0.machine(memory, config).map_err(NotLoaded::Failed)
    }
}

impl Machine for FakeMachine {
    type State = FakeState;

    fn pause(&mut self) -> Result<(), Failure> {
        self.stage.step("pause")
    }

    fn resume(&mut self) -> Result<(), Failure> {
        self.stage.step("resume")
    }

    fn save(&mut self) -> Result<FakeState, Failure> {
        self.stage.step("save")?;
        Ok(FakeState {
            register: self.stage.see(|seen| seen.register),
        })
    }

    fn memory(&self) -> &GuestMemory {
        &self.memory
    }

    fn end(&self) -> Arc<EndSignal> {
        Arc::clone(&self.end)
    }

    fn take_counts(&self) -> Map<String, Value> {
        let mut counts = Map::new();
        counts.insert("vsock".to_owned(), json!({"rx_bytes_count": 5}));
        counts
    }
}

/// A program with a control socket, in threads of the test.
pub struct Program {
    pub stage: Stage,
    pub socket: PathBuf,
    pub directory: Arc<TempDir>,
    owner: Option<JoinHandle<std::io::Result<End>>>,
    client: Client,
}

impl Program {
    pub fn start() -> Program {
        let directory = tempfile::tempdir().expect("a temporary directory");
        Program::start_in(Arc::new(directory), "api")
    }

    /// A program in a directory that `prepare` has made something of.
    pub fn start_prepared(prepare: impl FnOnce(&Path)) -> Program {
        let directory = tempfile::tempdir().expect("a temporary directory");
        prepare(directory.path());
        Program::start_in(Arc::new(directory), "api")
    }

    /// Another program with the same files.
    pub fn start_beside(&self, name: &str) -> Program {
        Program::start_in(Arc::clone(&self.directory), name)
    }

    fn start_in(directory: Arc<TempDir>, name: &str) -> Program {
        let stage = Stage::default();
        let socket = directory.path().join(name);
        let mut server = Server::bind(&socket).expect("the socket is made");
        let (sender, desk) = desk().expect("an event descriptor");
        std::thread::spawn(move || server.run(&sender));
        let hypervisor = FakeHypervisor(stage.clone());
        let owner = std::thread::spawn(move || {
            let mut controller = Controller::new(hypervisor, "test".to_owned());
            let end = desk.serve(&mut controller, |_| Ok(()));
            controller.flush_at_end();
            end
        });
        Program {
            client: Client::connect(&socket),
            stage,
            socket,
            directory,
            owner: Some(owner),
        }
    }

    pub fn path(&self, name: &str) -> String {
        self.directory
            .path()
            .join(name)
            .to_str()
            .expect("temporary directories have plain names")
            .to_owned()
    }

    /// Sends a request and takes the status and the body.
    pub fn ask(&mut self, method: &str, path: &str, body: &Value) -> (u16, Value) {
        let body = match body {
            Value::Null => String::new(),
            body => body.to_string(),
        };
        self.client
            .send(request(method, path, &body).as_bytes())
            .expect("the server takes it");
        self.client.receive().expect("the server answers")
    }

    /// Sends a request that must be done.
    pub fn done(&mut self, method: &str, path: &str, body: &Value) {
        let answer = self.ask(method, path, body);
        assert_eq!(answer, (204, Value::Null), "{method} {path} {body}");
    }

    /// Sends a request that must be refused; returns what is said.
    pub fn refused(&mut self, method: &str, path: &str, body: &Value) -> (String, String) {
        let (status, answer) = self.ask(method, path, body);
        assert_eq!(status, 400, "{method} {path} {body}: {answer}");
        let text = |name: &str| answer[name].as_str().expect("a text").to_owned();
        (text("fault_kind"), text("fault_message"))
    }

    pub fn state(&mut self) -> String {
        let (status, answer) = self.ask("GET", "/", &Value::Null);
        assert_eq!(status, 200);
        answer["state"].as_str().expect("a state").to_owned()
    }

    /// A machine of one MiB that runs.
    pub fn boot(&mut self) {
        self.done(
            "PUT",
            "/machine-config",
            &json!({"vcpu_count": 1, "mem_size_mib": 1}),
        );
        self.done(
            "PUT",
            "/boot-source",
            &json!({"kernel_image_path": "/kernel"}),
        );
        self.done("PUT", "/actions", &json!({"action_type": "InstanceStart"}));
    }

    pub fn pause(&mut self) {
        self.done("PATCH", "/vm", &json!({"state": "Paused"}));
    }

    pub fn resume(&mut self) {
        self.done("PATCH", "/vm", &json!({"state": "Resumed"}));
    }

    pub fn snapshot(&mut self, kind: &str) {
        let body = self.snapshot_body(kind);
        self.done("PUT", "/snapshot/create", &body);
    }

    pub fn snapshot_body(&self, kind: &str) -> Value {
        json!({
            "snapshot_type": kind,
            "snapshot_path": self.path("state"),
            "mem_file_path": self.path("memory"),
        })
    }

    pub fn load_body(&self) -> Value {
        json!({
            "snapshot_path": self.path("state"),
            "mem_backend": {"backend_type": "File", "backend_path": self.path("memory")},
        })
    }

    pub fn load(&mut self) {
        let body = self.load_body();
        self.done("PUT", "/snapshot/load", &body);
    }

    /// Ends the guest and waits for the program.
    pub fn end(mut self, end: End) -> End {
        self.stage
            .see(|seen| seen.end.clone())
            .expect("a machine")
            .tell(end);
        self.owner
            .take()
            .expect("it is taken once")
            .join()
            .expect("the thread does not panic")
            .expect("the program ends by its guest")
    }
}

pub fn request(method: &str, path: &str, body: &str) -> String {
    let length = match body.is_empty() {
        true => String::new(),
        false => format!("Content-Length: {}\r\n", body.len()),
    };
    format!("{method} {path} HTTP/1.1\r\nHost: localhost\r\n{length}\r\n{body}")
}

/// A client of the socket.
pub struct Client {
    pub stream: UnixStream,
    rest: Vec<u8>,
}

impl Client {
    pub fn connect(socket: &Path) -> Client {
        let stream = UnixStream::connect(socket).expect("the socket listens");
        // Far beyond anything that is waited for: only so that a test that fails ends.
        stream
            .set_read_timeout(Some(Duration::from_secs(60)))
            .expect("sockets have timeouts");
        Client {
            stream,
            rest: Vec::new(),
        }
    }

    pub fn send(&mut self, bytes: &[u8]) -> std::io::Result<()> {
        self.stream.write_all(bytes)
    }

    /// The next response, or `None` if the server closed the connection.
    pub fn receive(&mut self) -> Option<(u16, Value)> {
        let head = loop {
            if let Some(end) = self.rest.windows(4).position(|part| part == b"\r\n\r\n") {
                break self.rest.drain(..end + 4).collect::<Vec<u8>>();
            }
            self.fill()?;
        };
        let head = String::from_utf8(head).expect("heads are text");
        let status = head
            .split(' ')
            .nth(1)
            .and_then(|status| status.parse().ok())
            .expect("a status line");
        let length = head
            .lines()
            .find_map(|line| line.strip_prefix("Content-Length: "))
            .map_or(0, |length| length.parse().expect("a number"));
        while self.rest.len() < length {
            self.fill()?;
        }
        let body: Vec<u8> = self.rest.drain(..length).collect();
        let body = match body.is_empty() {
            true => Value::Null,
            false => serde_json::from_slice(&body).expect("bodies are JSON"),
        };
        Some((status, body))
    }

    fn fill(&mut self) -> Option<()> {
        let mut buffer = [0; 4096];
        match self.stream.read(&mut buffer) {
            Ok(0) => None,
            Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => None,
            Ok(count) => {
                self.rest.extend_from_slice(&buffer[..count]);
                Some(())
            }
            Err(error) => panic!("the server does not answer: {error}"),
        }
    }
}
