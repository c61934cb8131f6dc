//! What a sprite has used.

use axum::extract::State;
use axum::response::Response;
use sprite_api::usage::Usage;
use sprite_api::{ErrorBody, Stamp};
use sprite_host::{Host, Sprite};

use crate::answer;
use crate::named::Named;
use crate::problem::Answer;
use crate::routes::App;

/// Show what a sprite has used
///
/// Time in each state, CPU time, memory, traffic, and what it takes of the disk. Does not wake it.
#[utoipa::path(
    get, path = "/v1/sprites/{name}/usage", tag = "sprites", operation_id = "get_sprite_usage",
    params(("name" = String, Path, description = "Name of the sprite")),
    responses(
        (status = 200, description = "What it has used", body = Usage),
        (status = 404, description = "There is none of that name", body = ErrorBody),
    )
)]
pub(crate) async fn show(State(app): State<App>, named: Named) -> Answer<Response> {
    show_of(&app.host, &named.sprite).await
}

/// What that sprite has used.
pub(crate) async fn show_of(host: &Host, sprite: &Sprite) -> Answer<Response> {
    let usage = host.usage(sprite).await?;
    let used = usage.used;
    Ok(answer::ok(&Usage {
        sprite_name: sprite.name.to_string(),
        status: usage.status,
        since: Stamp(usage.since),
        until: Stamp(usage.until),
        running_seconds: seconds(used.running_micros),
        warm_seconds: seconds(used.warm_micros),
        cold_seconds: seconds(used.cold_micros),
        cpu_seconds: seconds(used.cpu_micros),
        memory_gib_seconds: gib_seconds(used.memory_mib_micros),
        network_in_bytes: used.bytes_in,
        network_out_bytes: used.bytes_out,
        memory_bytes: usage.memory_bytes,
        disk_unique_bytes: usage.disk.unique_bytes,
        snapshot_bytes: usage.disk.snapshot_bytes,
    }))
}

/// Exact up to 285 years of microseconds.
#[expect(
    clippy::cast_precision_loss,
    reason = "JSON's numbers are read as this everywhere"
)]
fn seconds(micros: u64) -> f64 {
    micros as f64 / 1e6
}

#[expect(
    clippy::cast_precision_loss,
    reason = "JSON's numbers are read as this everywhere"
)]
fn gib_seconds(mib_micros: u128) -> f64 {
    mib_micros as f64 / 1024.0 / 1e6
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn units_are_as_they_are_called() {
        assert!((seconds(1_500_000) - 1.5).abs() < 1e-9);
        assert!((gib_seconds(512 * 10_000_000) - 5.0).abs() < 1e-9);
    }
}
