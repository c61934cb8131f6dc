//! Services: programs that a sprite keeps running.
//!
//! Source: behaviour reference §1.9.

use std::collections::BTreeMap;
use std::time::Duration;

use hyper::Method;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use crate::body::Lines;
use crate::client::Call;
use crate::error::Error;
use crate::model::Timestamp;
use crate::sessions::{Signal, duration};
use crate::sprite::Sprite;
use crate::url::Target;

/// How long a stream may be silent before the connection counts as lost. Servers say something more often.
const SILENCE: Duration = Duration::from_secs(90);

/// A service, and how it is.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Service {
    /// Its name.
    pub name: String,
    /// The executable.
    #[serde(default)]
    pub cmd: String,
    /// Its arguments.
    #[serde(default)]
    pub args: Vec<String>,
    /// Variables over those of the sprite.
    #[serde(default)]
    pub env: BTreeMap<String, String>,
    /// Working directory; absent: the user's home.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dir: Option<String>,
    /// Services that have to run before this one is started.
    #[serde(default)]
    pub needs: Vec<String>,
    /// The port to which the sprite's URL leads, if it leads to this service.
    #[serde(default)]
    pub http_port: Option<u16>,
    /// How it is now.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub state: Option<ServiceState>,
    /// Everything else that the server told.
    #[serde(flatten)]
    pub other: Map<String, Value>,
}

/// How a service is.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ServiceState {
    /// What it does.
    #[serde(default)]
    pub status: ServiceStatus,
    /// Its process as the sprite sees it, while there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pid: Option<u32>,
    /// When that began.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub started_at: Option<Timestamp>,
    /// Why it does not run, if it should; else empty.
    #[serde(default)]
    pub error: String,
    /// How often it was started again after it had ended by itself.
    #[serde(default)]
    pub restart_count: u64,
    /// When it is started again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next_restart_at: Option<Timestamp>,
    /// Everything else that the server told.
    #[serde(flatten)]
    pub other: Map<String, Value>,
}

/// What a service does.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ServiceStatus {
    /// It has no process, and is to have none.
    Stopped,
    /// It waits for those that it needs, or its process is being made.
    Starting,
    /// Its process runs.
    Running,
    /// Its process was told to end.
    Stopping,
    /// Its process ended, or could not be made; it is started again.
    Failed,
    /// A state that this version does not know.
    #[default]
    #[serde(other)]
    Unknown,
}

/// Something that happened to a service.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ServiceEvent {
    /// When, Unix milliseconds.
    #[serde(default)]
    pub timestamp: i64,
    /// What.
    #[serde(flatten)]
    pub what: ServiceEventKind,
}

/// What happened.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "lowercase")]
pub enum ServiceEventKind {
    /// Its process runs.
    Started {
        /// The process as the sprite sees it, if the server told.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        pid: Option<u32>,
    },
    /// It wrote a line.
    Stdout {
        /// The line without its end.
        data: String,
    },
    /// It wrote a line to stderr.
    Stderr {
        /// The line without its end.
        data: String,
    },
    /// Its process ended by itself.
    Exit {
        /// 0 to 255; 128 + n for signal n.
        exit_code: i32,
    },
    /// Its process was told to end.
    Stopping,
    /// Its process ended as it was told to.
    Stopped {
        /// As above; absent if there was no process.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        exit_code: Option<i32>,
    },
    /// Something did not work.
    Error {
        /// For people.
        data: String,
    },
    /// All was told.
    Complete {
        /// Where its output is kept in the sprite: `combined`, and maybe `stdout` and `stderr`.
        #[serde(default)]
        log_files: BTreeMap<String, String>,
    },
    /// Something that this version does not know.
    #[serde(other)]
    Unknown,
}

/// What is told of a service, event by event.
#[derive(Debug)]
pub struct ServiceEvents {
    lines: Lines,
    complete: bool,
}

impl ServiceEvents {
    /// The next event; `None` after [`ServiceEventKind::Complete`].
    ///
    /// # Errors
    /// When the stream breaks or ends early: what was cut off never looks whole.
    ///
    /// # Cancel safety
    /// Safe: no event is lost.
    pub async fn next(&mut self) -> Result<Option<ServiceEvent>, Error> {
        if self.complete {
            return Ok(None);
        }
        let event: Option<ServiceEvent> = self.lines.next().await?;
        let event = event.ok_or(Error::Interrupted { source: None })?;
        self.complete = matches!(event.what, ServiceEventKind::Complete { .. });
        Ok(Some(event))
    }

    /// Reads to the end. The first [`ServiceEventKind::Error`] on the way, if there was one.
    ///
    /// # Errors
    /// As [`next`](Self::next).
    pub async fn finish(&mut self) -> Result<Option<String>, Error> {
        let mut first = None;
        while let Some(event) = self.next().await? {
            if let ServiceEventKind::Error { data } = event.what {
                first.get_or_insert(data);
            }
        }
        Ok(first)
    }
}

/// A description of a service; [`send`](Self::send) creates it, or changes the one of that name.
#[derive(Debug, Clone)]
#[must_use = "nothing is sent before `send`"]
pub struct PutService {
    sprite: Sprite,
    name: String,
    cmd: String,
    args: Vec<String>,
    env: BTreeMap<String, String>,
    dir: Option<String>,
    needs: Vec<String>,
    http_port: Option<u16>,
    watched: Option<Duration>,
}

impl PutService {
    /// Adds an argument.
    pub fn arg(mut self, arg: impl Into<String>) -> Self {
        self.args.push(arg.into());
        self
    }

    /// Adds arguments.
    pub fn args<T: Into<String>>(mut self, args: impl IntoIterator<Item = T>) -> Self {
        self.args.extend(args.into_iter().map(Into::into));
        self
    }

    /// Adds a variable.
    pub fn env(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.env.insert(name.into(), value.into());
        self
    }

    /// Sets the working directory.
    pub fn dir(mut self, dir: impl Into<String>) -> Self {
        self.dir = Some(dir.into());
        self
    }

    /// Adds a service that has to run before; it must exist.
    pub fn needs(mut self, service: impl Into<String>) -> Self {
        self.needs.push(service.into());
        self
    }

    /// The sprite's URL leads to this port from now on.
    pub fn http_port(mut self, port: u16) -> Self {
        self.http_port = Some(port);
        self
    }

    /// For how long what happens is told; the server's default is 5 s.
    pub fn watch_for(mut self, time: Duration) -> Self {
        self.watched = Some(time);
        self
    }

    /// Creates or changes the service, which is started.
    ///
    /// # Errors
    /// It is described wrongly (status 400), or another one has an HTTP port (status 409).
    pub async fn send(self) -> Result<ServiceEvents, Error> {
        let mut body = json!({
            "cmd": self.cmd, "args": self.args, "env": self.env, "needs": self.needs,
        });
        if let Some(dir) = &self.dir {
            body["dir"] = json!(dir);
        }
        if let Some(port) = self.http_port {
            body["http_port"] = json!(port);
        }
        let target = self.sprite.service_target(&self.name, "")?;
        let target = watched(target, "duration", self.watched);
        let call = Call::new(Method::PUT, target);
        self.sprite.service_events(&call.json(&body)).await
    }
}

fn watched(target: Target, key: &str, time: Option<Duration>) -> Target {
    target.param_opt(key, time.map(duration).as_deref())
}

impl Sprite {
    /// The sprite's services, in the order of their names.
    ///
    /// # Errors
    /// When there is no such sprite or the call fails.
    pub async fn services(&self) -> Result<Vec<Service>, Error> {
        let call = Call::new(Method::GET, self.target()?.path("/services"));
        self.client().json(&call).await
    }

    /// The service of that name.
    ///
    /// # Errors
    /// [`Error::is_not_found`] when there is none.
    pub async fn service(&self, name: &str) -> Result<Service, Error> {
        let call = Call::new(Method::GET, self.service_target(name, "")?);
        self.client().json(&call).await
    }

    /// A service of that name that runs `cmd`, to be described further. The sprite keeps it running: it is started
    /// when the sprite boots, and again when it ends by itself.
    ///
    /// ```no_run
    /// # async fn example(sprite: sprite_client::Sprite) -> Result<(), sprite_client::Error> {
    /// let mut events = sprite
    ///     .put_service("web", "python3")
    ///     .args(["-m", "http.server", "3000"])
    ///     .http_port(3000)
    ///     .send()
    ///     .await?;
    /// while let Some(event) = events.next().await? {
    ///     println!("{event:?}");
    /// }
    /// # Ok(())
    /// # }
    /// ```
    pub fn put_service(&self, name: impl Into<String>, cmd: impl Into<String>) -> PutService {
        PutService {
            sprite: self.clone(),
            name: name.into(),
            cmd: cmd.into(),
            args: Vec::new(),
            env: BTreeMap::new(),
            dir: None,
            needs: Vec::new(),
            http_port: None,
            watched: None,
        }
    }

    /// Starts a service and those that it needs; one that runs is left alone. Tells what happens for `watch`, or for 5 s.
    ///
    /// # Errors
    /// [`Error::is_not_found`] when there is none.
    pub async fn start_service(
        &self,
        name: &str,
        watch: Option<Duration>,
    ) -> Result<ServiceEvents, Error> {
        let target = watched(self.service_target(name, "/start")?, "duration", watch);
        self.service_events(&Call::new(Method::POST, target)).await
    }

    /// Replaces the process of a service. Tells what happens for `watch`, or for 5 s.
    ///
    /// # Errors
    /// [`Error::is_not_found`] when there is none.
    pub async fn restart_service(
        &self,
        name: &str,
        watch: Option<Duration>,
    ) -> Result<ServiceEvents, Error> {
        let target = watched(self.service_target(name, "/restart")?, "duration", watch);
        self.service_events(&Call::new(Method::POST, target)).await
    }

    /// Stops a service until it is started again. Its processes are killed when they have not ended after `timeout`,
    /// or 10 s.
    ///
    /// # Errors
    /// [`Error::is_not_found`] when there is none; status 409 when it is stopped already.
    pub async fn stop_service(
        &self,
        name: &str,
        timeout: Option<Duration>,
    ) -> Result<ServiceEvents, Error> {
        let target = watched(self.service_target(name, "/stop")?, "timeout", timeout);
        self.service_events(&Call::new(Method::POST, target)).await
    }

    /// Signals the process group of a service. One that ends by it is started again.
    ///
    /// # Errors
    /// [`Error::is_not_found`] when there is none; status 409 when it is not running.
    pub async fn signal_service(&self, name: &str, signal: &Signal) -> Result<(), Error> {
        let body = json!({ "name": name, "signal": signal.name() });
        let call = Call::new(Method::POST, self.target()?.path("/services/signal"));
        self.client().done(&call.json(&body)).await
    }

    /// Stops a service and forgets it; its logs stay in the sprite.
    ///
    /// # Errors
    /// [`Error::is_not_found`] when there is none; status 409 when another one needs it.
    pub async fn delete_service(&self, name: &str) -> Result<(), Error> {
        let call = Call::new(Method::DELETE, self.service_target(name, "")?);
        self.client().done(&call).await
    }

    /// What a service wrote: the last `lines` lines that are kept, or all of them; then what comes, for `follow`.
    /// Following does not keep the sprite awake, and ends when it falls asleep.
    ///
    /// # Errors
    /// [`Error::is_not_found`] when there is none.
    pub async fn service_logs(
        &self,
        name: &str,
        lines: Option<u64>,
        follow: Option<Duration>,
    ) -> Result<ServiceEvents, Error> {
        let lines = lines.map(|lines| lines.to_string());
        let target = self.service_target(name, "/logs")?;
        let target = target.param_opt("lines", lines.as_deref());
        let target = watched(target, "duration", follow);
        self.service_events(&Call::new(Method::GET, target)).await
    }

    fn service_target(&self, name: &str, below: &str) -> Result<Target, Error> {
        Ok(self.target()?.path("/services").segment(name)?.path(below))
    }

    async fn service_events(&self, call: &Call) -> Result<ServiceEvents, Error> {
        let response = self.client().accepted(call).await?;
        Ok(ServiceEvents {
            lines: Lines::new(response.into_body(), SILENCE),
            complete: false,
        })
    }
}
