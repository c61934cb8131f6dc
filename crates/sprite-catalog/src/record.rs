//! Rows to sprites.

use std::str::FromStr;

use sprite_types::{DriverKind, Generation, Incarnation, Resources, SpriteStatus};
use sqlx::sqlite::SqliteRow;

use crate::error::CatalogError;
use crate::row;
use crate::settings::{IdleTimeout, Idleness, UnknownWord};
use crate::sprite::Sprite;

pub(crate) struct StatusWord(pub(crate) SpriteStatus);

impl FromStr for StatusWord {
    type Err = UnknownWord;

    fn from_str(text: &str) -> Result<Self, UnknownWord> {
        match text {
            "running" => Ok(Self(SpriteStatus::Running)),
            "warm" => Ok(Self(SpriteStatus::Warm)),
            "cold" => Ok(Self(SpriteStatus::Cold)),
            unknown => Err(UnknownWord::new("status", unknown)),
        }
    }
}

struct DriverWord(DriverKind);

impl FromStr for DriverWord {
    type Err = UnknownWord;

    fn from_str(text: &str) -> Result<Self, UnknownWord> {
        match text {
            "microvm" => Ok(Self(DriverKind::Microvm)),
            "container" => Ok(Self(DriverKind::Container)),
            unknown => Err(UnknownWord::new("driver", unknown)),
        }
    }
}

pub(crate) fn read(row: &SqliteRow) -> Result<Sprite, CatalogError> {
    Ok(Sprite {
        id: row::parsed(row, "id")?,
        name: row::parsed(row, "name")?,
        org: row::parsed(row, "org_id")?,
        org_slug: row::parsed(row, "org_slug")?,
        status: row::parsed::<StatusWord>(row, "status")?.0,
        driver: row::parsed::<DriverWord>(row, "driver")?.0,
        image: row::text(row, "image")?,
        labels: row::json(row, "labels")?,
        url_auth: row::parsed(row, "url_auth")?,
        private_access: row::parsed(row, "private_access")?,
        resources: Resources {
            cpus: row::number(row, "cpus")?,
            memory_mib: row::number(row, "memory_mib")?,
            storage_gb: row::number(row, "storage_gb")?,
            pids: row::number(row, "pids")?,
        },
        environment: row::json(row, "environment")?,
        idleness: Idleness {
            timeout: IdleTimeout::of_millis(row::optional_number(row, "idle_timeout_ms")?),
            connections: row::parsed(row, "connections")?,
        },
        api_access: row::number::<i64>(row, "api_access")? != 0,
        made_by: row::optional_parsed(row, "made_by")?,
        generation: Generation(row::number(row, "generation")?),
        incarnation: Incarnation(row::number(row, "incarnation")?),
        machine: row::optional_parsed(row, "machine_id")?,
        created_at: row::time(row, "created_at")?,
        updated_at: row::time(row, "updated_at")?,
        last_running_at: row::optional_time(row, "last_running_at")?,
        last_warming_at: row::optional_time(row, "last_warming_at")?,
        failure: row::optional_text(row, "failure")?,
    })
}
