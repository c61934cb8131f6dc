//! What the machine tells of a service, as lines.

use std::collections::VecDeque;
use std::io;
use std::time::{Duration, SystemTime};

use axum::body::Body;
use axum::http::{HeaderValue, header};
use axum::response::Response;
use bytes::Bytes;
use futures_util::stream;
use sprite_agent_api::services::{self, ServiceHappening, ServicesReply};
use sprite_api::NDJSON;
use sprite_api::service::{LogFiles, ServiceEvent, ServiceEventKind};
use sprite_host::ServiceTelling;
use sprite_types::ServiceName;
use tokio_util::sync::CancellationToken;

use crate::answer;
use crate::sleep::Sleep;

/// A line's end at least this often, so that both ends notice when the other is gone. Clients skip empty lines.
const KEEPALIVE: Duration = Duration::from_secs(15);

/// When an answer ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Until {
    /// When the machine has told all.
    Told,
    /// So too; and it is an error if the service ends by itself meanwhile. Source: behaviour reference §11.13.
    Fails,
}

struct Teller {
    name: ServiceName,
    telling: ServiceTelling,
    until: Until,
    sleep: Option<Sleep>,
    stop: CancellationToken,
    ready: VecDeque<Bytes>,
    over: bool,
}

/// The answer as it comes. With `sleep` it ends when the sprite falls asleep.
pub(super) fn answer(
    name: ServiceName,
    telling: ServiceTelling,
    until: Until,
    sleep: Option<Sleep>,
    stop: CancellationToken,
) -> Response {
    let teller = Teller {
        name,
        telling,
        until,
        sleep,
        stop,
        ready: VecDeque::new(),
        over: false,
    };
    let lines = stream::unfold(teller, |mut teller| async move {
        let line = teller.next().await?;
        Some((Ok::<_, io::Error>(line), teller))
    });
    let mut response = Response::new(Body::from_stream(lines));
    response
        .headers_mut()
        .insert(header::CONTENT_TYPE, HeaderValue::from_static(NDJSON));
    response
}

impl Teller {
    async fn next(&mut self) -> Option<Bytes> {
        loop {
            if let Some(line) = self.ready.pop_front() {
                return Some(line);
            }
            if self.over {
                return None;
            }
            let told = tokio::select! {
                told = self.telling.next() => told,
                () = fallen(&mut self.sleep) => {
                    self.error("the sprite falls asleep".to_owned());
                    self.complete();
                    continue;
                }
                () = self.stop.cancelled() => {
                    self.error("the server stops".to_owned());
                    self.complete();
                    continue;
                }
                () = tokio::time::sleep(KEEPALIVE) => return Some(Bytes::from_static(b"\n")),
            };
            match told {
                Ok(Some(ServicesReply::Event(event))) => self.event(event),
                Ok(Some(
                    ServicesReply::Applied
                    | ServicesReply::States { .. }
                    | ServicesReply::Listening
                    | ServicesReply::Failed(_),
                )) => {}
                Ok(None) => self.complete(),
                Err(error) => {
                    self.error(error.to_string());
                    self.complete();
                }
            }
        }
    }

    fn event(&mut self, event: services::ServiceEvent) {
        let exit = match event.what {
            ServiceHappening::Exit { code } => Some(code),
            ServiceHappening::Started { .. }
            | ServiceHappening::Stdout { .. }
            | ServiceHappening::Stderr { .. }
            | ServiceHappening::Stopping
            | ServiceHappening::Stopped { .. }
            | ServiceHappening::Error { .. }
            | ServiceHappening::Skipped { .. } => None,
        };
        self.line(event.unix_ms, kind(event.what));
        match (self.until, exit) {
            (Until::Fails, Some(code)) => {
                self.error(format!("service {} exited with status {code}", self.name));
            }
            (Until::Fails, None) | (Until::Told, _) => {}
        }
    }

    fn error(&mut self, data: String) {
        self.line(now_ms(), ServiceEventKind::Error { data });
    }

    fn complete(&mut self) {
        self.over = true;
        let log_files = LogFiles::of(self.name.as_str());
        self.line(now_ms(), ServiceEventKind::Complete { log_files });
    }

    fn line(&mut self, timestamp: i64, what: ServiceEventKind) {
        let event = ServiceEvent { timestamp, what };
        self.ready.push_back(answer::line(&event));
    }
}

async fn fallen(sleep: &mut Option<Sleep>) {
    match sleep {
        Some(sleep) => sleep.fallen().await,
        None => std::future::pending().await,
    }
}

fn kind(what: ServiceHappening) -> ServiceEventKind {
    match what {
        ServiceHappening::Started { pid } => ServiceEventKind::Started { pid: Some(pid) },
        ServiceHappening::Stdout { data } => ServiceEventKind::Stdout { data },
        ServiceHappening::Stderr { data } => ServiceEventKind::Stderr { data },
        ServiceHappening::Exit { code } => ServiceEventKind::Exit {
            exit_code: code.into(),
        },
        ServiceHappening::Stopping => ServiceEventKind::Stopping,
        ServiceHappening::Stopped { code } => ServiceEventKind::Stopped {
            exit_code: code.map(Into::into),
        },
        ServiceHappening::Error { message } => ServiceEventKind::Error { data: message },
        ServiceHappening::Skipped { count } => ServiceEventKind::Error {
            data: format!("{count} lines were left out here; the log has them"),
        },
    }
}

fn now_ms() -> i64 {
    let since = SystemTime::now()
        .duration_since(SystemTime::UNIX_EPOCH)
        .unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}
