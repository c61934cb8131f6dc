//! What the host counts of itself, for monitoring: never of a single sprite, so that there are as many series with
//! 100,000 sprites as with one.

use std::time::Duration;

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;
use sprite_lifecycle::{Fault, Left, Operation};

/// A label and its value.
type Label = (&'static str, &'static str);

/// From a thaw, which takes a millisecond, to a boot on a slow host.
const WAKE_SECONDS: [f64; 12] = [
    0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0,
];

#[derive(Debug)]
pub(crate) struct Metrics {
    wakes: Family<[Label; 2], Counter>,
    wake_seconds: Family<[Label; 1], Histogram, fn() -> Histogram>,
    sleeps: Family<[Label; 1], Counter>,
}

impl Default for Metrics {
    fn default() -> Self {
        Self {
            wakes: Family::default(),
            wake_seconds: Family::new_with_constructor(|| Histogram::new(WAKE_SECONDS)),
            sleeps: Family::default(),
        }
    }
}

impl Metrics {
    pub(crate) fn register(&self, registry: &mut Registry) {
        let told = "Wakes of sprites: how, and what became of them";
        registry.register("sprited_wakes", told, self.wakes.clone());
        let told = "How long wakes took that were done";
        registry.register("sprited_wake_seconds", told, self.wake_seconds.clone());
        let told = "Attempts of sprites to fall asleep";
        registry.register("sprited_sleeps", told, self.sleeps.clone());
    }

    /// An operation has ended.
    pub(crate) fn ended(
        &self,
        operation: Operation,
        result: &Result<(), Fault>,
        elapsed: Duration,
    ) {
        match operation {
            Operation::Boot => self.woke("boot", result, elapsed),
            Operation::Thaw => self.woke("thaw", result, elapsed),
            Operation::Load => self.woke("load", result, elapsed),
            // Only the first part of a sleep.
            Operation::Sync(_) if result.is_ok() => {}
            Operation::Sync(_) | Operation::Freeze | Operation::Snapshot => self.slept(result),
            Operation::Create
            | Operation::Adopt
            | Operation::Stop(_)
            | Operation::Mark
            | Operation::Destroy(_) => {}
        }
    }

    fn woke(&self, how: &'static str, result: &Result<(), Fault>, elapsed: Duration) {
        let how = ("how", how);
        let outcome = ("outcome", outcome(result));
        self.wakes.get_or_create(&[how, outcome]).inc();
        if result.is_ok() {
            let seconds = self.wake_seconds.get_or_create(&[how]);
            seconds.observe(elapsed.as_secs_f64());
        }
    }

    fn slept(&self, result: &Result<(), Fault>) {
        // Somebody uses it after all: it did not have to sleep.
        let used = |fault: &Fault| fault.left == Left::InUse;
        if !result.as_ref().is_err_and(used) {
            let outcome = [("outcome", outcome(result))];
            self.sleeps.get_or_create(&outcome).inc();
        }
    }
}

fn outcome(result: &Result<(), Fault>) -> &'static str {
    match result {
        Ok(()) => "done",
        Err(_) => "failed",
    }
}
