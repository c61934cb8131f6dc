//! `sprite usage`: what a sprite has used.

use sprite_client::Usage;

use crate::context::Context;
use crate::failure::Failure;
use crate::show;

/// Show what a sprite has used
///
/// Time in each state, CPU time, memory, traffic, and what it takes of the disk. Does not wake it.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Name of the sprite [default: the one of this directory]
    name: Option<String>,
}

pub(crate) async fn run(args: &Args, context: &Context) -> Result<u8, Failure> {
    let sprite = context.sprite(args.name.as_deref())?;
    let usage = sprite
        .usage()
        .await
        .map_err(|error| context.failure(&error))?;
    if context.global.json {
        let value = serde_json::to_value(&usage)
            .map_err(|error| Failure::caused("cannot show the answer", &error))?;
        show::json(&value)?;
    } else {
        show::data(&text(&usage))?;
    }
    Ok(0)
}

fn text(usage: &Usage) -> String {
    let memory = usage
        .memory_bytes
        .map(|now| format!(" (now {})", bytes(now)));
    let lines = [
        ("since", usage.since.to_string()),
        ("running", seconds(usage.running_seconds)),
        ("warm", seconds(usage.warm_seconds)),
        ("cold", seconds(usage.cold_seconds)),
        ("cpu", seconds(usage.cpu_seconds)),
        (
            "memory",
            format!(
                "{:.3} GiB·s{}",
                usage.memory_gib_seconds,
                memory.unwrap_or_default()
            ),
        ),
        ("received", bytes(usage.network_in_bytes)),
        ("sent", bytes(usage.network_out_bytes)),
        ("disk", bytes(usage.disk_unique_bytes)),
        ("snapshot", bytes(usage.snapshot_bytes)),
    ];
    lines
        .map(|(name, value)| format!("{name:<9} {}\n", show::plain(&value)))
        .concat()
}

fn seconds(seconds: f64) -> String {
    format!("{seconds:.3} s")
}

/// Bytes for people: three digits are enough.
#[expect(clippy::cast_precision_loss, reason = "for people")]
fn bytes(bytes: u64) -> String {
    const UNITS: [&str; 4] = ["KiB", "MiB", "GiB", "TiB"];
    if bytes < 1024 {
        return format!("{bytes} B");
    }
    let (mut value, mut unit) = (bytes as f64 / 1024.0, UNITS[0]);
    for larger in &UNITS[1..] {
        if value < 1024.0 {
            break;
        }
        (value, unit) = (value / 1024.0, larger);
    }
    format!("{value:.1} {unit}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_short() {
        assert_eq!(bytes(1023), "1023 B");
        assert_eq!(bytes(1024), "1.0 KiB");
        assert_eq!(bytes(5 << 30), "5.0 GiB");
        assert_eq!(bytes(u64::MAX), "16777216.0 TiB");
    }
}
