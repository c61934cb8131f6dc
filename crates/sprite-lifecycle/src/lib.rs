//! What a sprite does next.
#![warn(missing_docs)]
