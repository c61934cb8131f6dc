//! What sprites have used. Written in the transaction of each change of status, so that neither is known without the
//! other; the counting itself is pure and not here.

use sprite_lifecycle::metering::{Fact, Meter, Reading, Usage, WallMicros};
use sprite_types::{MachineId, SpriteId, SpriteStatus};
use sqlx::Row;
use sqlx::sqlite::{SqliteConnection, SqliteRow};
use time::OffsetDateTime;

use crate::error::{CatalogError, Step};
use crate::record::StatusWord;
use crate::row;
use crate::store::Catalog;

const METERED: &str = "SELECT s.status, s.machine_id, u.* FROM sprites s \
                       LEFT JOIN usage u ON u.sprite_id = s.id WHERE s.id = ?";

/// What a sprite has used until its row was last written, and how it has stood since.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Metered {
    /// How it stands.
    pub status: SpriteStatus,
    /// Its machine while it is running or warm.
    pub machine: Option<MachineId>,
    /// What was used.
    pub meter: Meter,
}

impl Catalog {
    /// What a sprite has used; `None` if there is no such sprite.
    ///
    /// # Errors
    /// The catalog cannot be read.
    pub async fn usage(
        &self,
        sprite: SpriteId,
        now: OffsetDateTime,
    ) -> Result<Option<Metered>, CatalogError> {
        let row = sqlx::query(METERED)
            .bind(sprite.to_string())
            .fetch_optional(&self.reader)
            .await
            .step("look up what a sprite used")?;
        row.as_ref().map(|row| read(row, now)).transpose()
    }

    /// Records what the counters of sprites' machines say. A machine that is not the sprite's any more is passed over: its
    /// end was recorded with its counters. One commit.
    ///
    /// # Errors
    /// Nothing was recorded.
    pub async fn record_usage(
        &self,
        readings: &[(SpriteId, Reading)],
        at: OffsetDateTime,
    ) -> Result<(), CatalogError> {
        const STEP: &str = "record what sprites used";
        if readings.is_empty() {
            return Ok(());
        }
        let mut tx = self.write(STEP).await?;
        for (sprite, reading) in readings {
            let metered = metered(&mut tx, STEP, *sprite, at).await?;
            if let Some(metered) = metered.filter(|now| now.machine == Some(reading.machine)) {
                let fact = fact(metered.status, at, Some(*reading));
                write(&mut tx, STEP, *sprite, &metered.meter.fold(&fact)).await?;
            }
        }
        tx.commit().await.step(STEP)
    }
}

/// Begins to count what a new sprite uses.
pub(crate) async fn begin(
    tx: &mut SqliteConnection,
    step: &'static str,
    sprite: SpriteId,
    at: OffsetDateTime,
) -> Result<(), CatalogError> {
    write(tx, step, sprite, &Meter::begun(wall(at))).await
}

async fn metered(
    tx: &mut SqliteConnection,
    step: &'static str,
    sprite: SpriteId,
    now: OffsetDateTime,
) -> Result<Option<Metered>, CatalogError> {
    let row = sqlx::query(METERED)
        .bind(sprite.to_string())
        .fetch_optional(tx)
        .await
        .step(step)?;
    row.as_ref().map(|row| read(row, now)).transpose()
}

/// Counts what was used until now. Before the row's status is changed: until now the sprite stood as it says.
pub(crate) async fn fold(
    tx: &mut SqliteConnection,
    step: &'static str,
    sprite: SpriteId,
    at: OffsetDateTime,
    reading: Option<Reading>,
) -> Result<(), CatalogError> {
    // Of a sprite without a row nothing is counted; the change itself says that there is none.
    let Some(metered) = metered(tx, step, sprite, at).await? else {
        return Ok(());
    };
    let fact = fact(metered.status, at, reading);
    write(tx, step, sprite, &metered.meter.fold(&fact)).await
}

fn fact(stood: SpriteStatus, at: OffsetDateTime, reading: Option<Reading>) -> Fact {
    Fact {
        stood,
        at: wall(at),
        reading,
    }
}

fn wall(at: OffsetDateTime) -> WallMicros {
    WallMicros(row::micros(at))
}

/// MiB × microseconds in a MiB × second.
const MICROS: u128 = 1_000_000;

fn read(row: &SqliteRow, now: OffsetDateTime) -> Result<Metered, CatalogError> {
    let status = row::parsed::<StatusWord>(row, "status")?.0;
    let metered: Option<String> = row.try_get("sprite_id").step("read a row")?;
    let meter = match metered {
        Some(_) => meter(row)?,
        // Somebody else wrote the sprite's row: it is counted from now on.
        None => Meter::begun(wall(now)),
    };
    Ok(Metered {
        status,
        machine: row::optional_parsed(row, "machine_id")?,
        meter,
    })
}

fn meter(row: &SqliteRow) -> Result<Meter, CatalogError> {
    let number = |column| row::number::<u64>(row, column);
    let counted = match row::optional_parsed(row, "counted_machine")? {
        Some(machine) => Some(Reading {
            machine,
            cpu_micros: number("counted_cpu")?,
            memory_bytes: number("counted_memory")?,
            bytes_in: number("counted_in")?,
            bytes_out: number("counted_out")?,
        }),
        None => None,
    };
    let whole = u128::from(number("memory_mib_secs")?) * MICROS;
    Ok(Meter {
        since: WallMicros(row::number(row, "since")?),
        until: WallMicros(row::number(row, "until")?),
        usage: Usage {
            running_micros: number("running_micros")?,
            warm_micros: number("warm_micros")?,
            cold_micros: number("cold_micros")?,
            cpu_micros: number("cpu_micros")?,
            memory_mib_micros: whole + u128::from(number("memory_mib_micros")?),
            bytes_in: number("bytes_in")?,
            bytes_out: number("bytes_out")?,
        },
        counted,
    })
}

/// A total as the catalog keeps it. What does not fit stays at the most that does.
fn kept(total: impl TryInto<i64>) -> i64 {
    total.try_into().unwrap_or(i64::MAX)
}

async fn write(
    tx: &mut SqliteConnection,
    step: &'static str,
    sprite: SpriteId,
    meter: &Meter,
) -> Result<(), CatalogError> {
    let (usage, counted) = (meter.usage, meter.counted);
    sqlx::query(
        "INSERT OR REPLACE INTO usage (sprite_id, since, until, running_micros, warm_micros, cold_micros, cpu_micros, \
         memory_mib_secs, memory_mib_micros, bytes_in, bytes_out, counted_machine, counted_cpu, counted_memory, \
         counted_in, counted_out) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
    )
    .bind(sprite.to_string())
    .bind(meter.since.0)
    .bind(meter.until.0)
    .bind(kept(usage.running_micros))
    .bind(kept(usage.warm_micros))
    .bind(kept(usage.cold_micros))
    .bind(kept(usage.cpu_micros))
    .bind(kept(usage.memory_mib_micros / MICROS))
    .bind(kept(usage.memory_mib_micros % MICROS))
    .bind(kept(usage.bytes_in))
    .bind(kept(usage.bytes_out))
    .bind(counted.map(|counted| counted.machine.to_string()))
    .bind(counted.map(|counted| kept(counted.cpu_micros)))
    .bind(counted.map(|counted| kept(counted.memory_bytes)))
    .bind(counted.map(|counted| kept(counted.bytes_in)))
    .bind(counted.map(|counted| kept(counted.bytes_out)))
    .execute(tx)
    .await
    .step(step)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn no_look_up_walks_the_whole_table() {
        crate::sprite::walks_nothing(METERED, 1).await;
    }
}
