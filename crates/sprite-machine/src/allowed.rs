//! How much of the host a machine may use now.

use std::sync::{Mutex, MutexGuard, PoisonError};

use sprite_types::Resources;

/// Known once it was set by this process.
#[derive(Debug)]
pub(crate) struct Allowed {
    resources: Mutex<Option<Resources>>,
}

impl Allowed {
    pub(crate) fn new(resources: Option<Resources>) -> Self {
        Self {
            resources: Mutex::new(resources),
        }
    }

    pub(crate) fn set(&self, resources: Resources) {
        *self.lock() = Some(resources);
    }

    pub(crate) fn get(&self) -> Option<Resources> {
        *self.lock()
    }

    fn lock(&self) -> MutexGuard<'_, Option<Resources>> {
        // Nothing panics while holding it.
        self.resources
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}
