//! `/metrics`: what the server tells monitoring of itself, on a listener of its own.
//!
//! Nothing of single sprites or organisations is told, so who reads it learns no names.

use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::{HeaderValue, StatusCode, header};
use axum::middleware::Next;
use axum::response::Response;
use axum::routing::get;
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::{Atomic, Gauge};
use prometheus_client::registry::Registry;
use sprite_host::Host;

use crate::problem::{Answer, Problem};
use crate::routes::{self, App};

/// A label and its value.
type Label = (&'static str, &'static str);

/// Source: OpenMetrics 1.0, "Overall Structure".
const KIND: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// Where a request comes to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Surface {
    /// The API.
    Api,
    /// A sprite's URL.
    Url,
    /// The API inside a sprite.
    Inside,
}

impl Surface {
    fn label(self) -> &'static str {
        match self {
            Self::Api => "api",
            Self::Url => "url",
            Self::Inside => "inside",
        }
    }
}

/// What is counted, and all that is told.
#[derive(Debug, Clone, Default)]
pub(crate) struct Metrics {
    requests: Family<[Label; 2], Counter>,
    sprites: Family<[Label; 1], Gauge>,
    active: Gauge,
    cpu_seconds: Gauge<f64, AtomicFloat>,
    resident_bytes: Gauge,
    registry: Arc<Registry>,
}

type AtomicFloat = std::sync::atomic::AtomicU64;

impl Metrics {
    pub(crate) fn of(host: &Host) -> Self {
        let mut metrics = Self::default();
        let mut registry = Registry::default();
        host.register_metrics(&mut registry);
        let told = "Answers by the class of their status";
        registry.register("sprited_http_requests", told, metrics.requests.clone());
        let told = "Sprites by status";
        registry.register("sprited_sprites", told, metrics.sprites.clone());
        let told = "Sprites that run, sleep in their machine, or are on their way";
        registry.register("sprited_active_sprites", told, metrics.active.clone());
        let told = "CPU time of this process";
        registry.register("sprited_cpu_seconds", told, metrics.cpu_seconds.clone());
        let told = "Memory of this process";
        let name = "sprited_resident_memory_bytes";
        registry.register(name, told, metrics.resident_bytes.clone());
        metrics.registry = Arc::new(registry);
        metrics
    }

    /// A request was answered.
    pub(crate) fn count(&self, surface: Surface, status: StatusCode) {
        let class = match status.as_u16() {
            100..200 => "1xx",
            200..300 => "2xx",
            300..400 => "3xx",
            400..500 => "4xx",
            _ => "5xx",
        };
        let labels = [("surface", surface.label()), ("status", class)];
        self.requests.get_or_create(&labels).inc();
    }

    /// Looks at what is told as it stands.
    async fn look(&self, host: &Host) -> Answer<()> {
        let counts = host.all_counts().await?;
        let told = [
            ("running", counts.running),
            ("warm", counts.warm),
            ("cold", counts.cold),
        ];
        for (status, count) in told {
            set(&self.sprites.get_or_create(&[("status", status)]), count);
        }
        set(&self.active, host.active() as u64);
        let cpu = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
        let cpu = std::time::Duration::try_from(cpu).unwrap_or_default();
        self.cpu_seconds.set(cpu.as_secs_f64());
        set(&self.resident_bytes, resident_bytes().unwrap_or(0));
        Ok(())
    }
}

fn set(gauge: &Gauge<i64, impl Atomic<i64>>, value: u64) {
    gauge.set(i64::try_from(value).unwrap_or(i64::MAX));
}

/// Source: proc_pid_status(5).
fn resident_bytes() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kib << 10)
}

/// Counts the answers of all routes below.
pub(crate) async fn count(
    State((metrics, surface)): State<(Metrics, Surface)>,
    request: Request,
    next: Next,
) -> Response {
    let response = next.run(request).await;
    metrics.count(surface, response.status());
    response
}

/// The routes of the metrics' listener: one.
pub(crate) fn router(app: App) -> Router {
    Router::new()
        .route("/metrics", get(show))
        .fallback(routes::no_route)
        .method_not_allowed_fallback(routes::no_method)
        .with_state(app)
}

async fn show(State(app): State<App>) -> Answer<Response> {
    app.metrics.look(&app.host).await?;
    let mut text = String::new();
    encode(&mut text, &app.metrics.registry).map_err(|error| Problem::internal(&error))?;
    let mut response = Response::new(Body::from(text));
    let kind = HeaderValue::from_static(KIND);
    response.headers_mut().insert(header::CONTENT_TYPE, kind);
    Ok(response)
}
