//! Telling a person what takes so long.

/// Hears what a slow operation is doing. Called from the operation's own thread, so it must return quickly.
pub trait Progress: Send + Sync {
    /// A step begins. `text` is a lower-case phrase without a full stop, such as `install packages`.
    fn step(&self, text: &str);

    /// A line that says how far the step is; worth showing only to someone who watches.
    fn detail(&self, text: &str);
}

/// Tells nobody.
#[derive(Debug, Clone, Copy, Default)]
pub struct Silent;

impl Progress for Silent {
    fn step(&self, _text: &str) {}

    fn detail(&self, _text: &str) {}
}
