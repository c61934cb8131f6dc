//! What a browser shows: cookies that nobody but this server can make.
//!
//! A cookie names the token with which its browser logged in, and ends with it. Its mark (a keyed BLAKE3) covers what
//! it is for, so that one made for a sprite is worth nothing at another, and none of another kind is taken for it.

use std::fmt;

use sprite_types::{SpriteId, TokenId};

/// Longest cookie that is looked at, in bytes.
const LONGEST: usize = 256;

/// The secret of a data directory's cookies: 32 random bytes.
#[derive(Clone, PartialEq, Eq)]
pub struct UrlKey([u8; Self::LEN]);

impl UrlKey {
    /// Its length in bytes.
    pub const LEN: usize = 32;

    /// The key of these bytes.
    #[must_use]
    pub fn new(bytes: [u8; Self::LEN]) -> Self {
        Self(bytes)
    }
}

impl fmt::Debug for UrlKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("UrlKey(secret)")
    }
}

/// What a cookie is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum For {
    /// The URL of one sprite.
    Sprite(SpriteId),
    /// The login page.
    Login,
}

impl UrlKey {
    /// Makes a cookie's value. `until` is in seconds since 1970.
    pub(crate) fn make(&self, purpose: For, token: &TokenId, until: u64) -> String {
        let mark = self.mark(purpose, token, until).to_hex();
        format!("{until}.{token}.{mark}")
    }

    /// The token that a cookie's value names, if it is for that and has not ended.
    pub(crate) fn read(&self, value: &str, purpose: For, now: u64) -> Option<TokenId> {
        if value.len() > LONGEST {
            return None;
        }
        let mut parts = value.split('.');
        let (until, token, mark) = (parts.next()?, parts.next()?, parts.next()?);
        if parts.next().is_some() {
            return None;
        }
        let (until, token): (u64, TokenId) = (until.parse().ok()?, token.parse().ok()?);
        let mark = blake3::Hash::from_hex(mark).ok()?;
        // Hashes compare in constant time.
        let ours = self.mark(purpose, &token, until) == mark;
        (ours && now < until).then_some(token)
    }

    /// The token that a sprite's cookie names.
    pub(crate) fn seen(&self, value: &str, sprite: SpriteId, now: u64) -> Option<TokenId> {
        self.read(value, For::Sprite(sprite), now)
    }

    fn mark(&self, purpose: For, token: &TokenId, until: u64) -> blake3::Hash {
        // None of the parts holds a line's end.
        let text = match purpose {
            For::Sprite(sprite) => format!("url cookie\n{sprite}\n{token}\n{until}"),
            For::Login => format!("login cookie\n{token}\n{until}"),
        };
        blake3::keyed_hash(&self.0, text.as_bytes())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cookie_is_good_for_one_thing_until_its_end() {
        let key = UrlKey::new([7; 32]);
        let (sprite, token) = (SpriteId::random(), TokenId::random());
        let value = key.make(For::Sprite(sprite), &token, 1000);
        assert_eq!(key.seen(&value, sprite, 999), Some(token.clone()));
        assert_eq!(key.seen(&value, sprite, 1000), None);
        assert_eq!(key.seen(&value, SpriteId::random(), 999), None);
        assert_eq!(key.read(&value, For::Login, 999), None);
        let login = key.make(For::Login, &token, 1000);
        assert_eq!(key.seen(&login, sprite, 999), None);
        let other = UrlKey::new([8; 32]);
        assert_eq!(other.seen(&value, sprite, 999), None);
    }

    #[test]
    fn whatever_is_changed_in_it_makes_it_worthless() {
        let key = UrlKey::new([7; 32]);
        let (sprite, token) = (SpriteId::random(), TokenId::random());
        let value = key.make(For::Sprite(sprite), &token, 1000);
        for at in 0..value.len() {
            let mut changed = value.clone().into_bytes();
            changed[at] ^= 1;
            let changed = String::from_utf8_lossy(&changed).into_owned();
            assert_eq!(key.seen(&changed, sprite, 1), None, "{changed}");
        }
        for text in ["", ".", "..", "...", &format!("{value}."), &"1".repeat(300)] {
            assert_eq!(key.seen(text, sprite, 1), None, "{text}");
        }
    }
}
