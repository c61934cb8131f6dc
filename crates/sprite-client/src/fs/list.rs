//! A listing, read as it comes: it may be longer than memory.

use std::collections::VecDeque;
use std::sync::Arc;

use bytes::BytesMut;
use futures_util::{Stream, stream};
use http_body_util::BodyExt;
use hyper::Method;
use hyper::body::Incoming;
use serde::Deserialize;

use super::{Entry, Fs};
use crate::client::Call;
use crate::error::Error;

/// Longest entry: two paths and some.
const LONGEST: usize = 1 << 20;

/// What a directory holds.
#[derive(Debug)]
pub struct Entries {
    body: Incoming,
    parser: Parser,
    ready: VecDeque<Entry>,
}

pub(super) async fn list(fs: &Fs, path: &str, all: bool) -> Result<Entries, Error> {
    let target = fs.query("list", path)?;
    let target = target.param_opt("recursive", all.then_some("true"));
    let response = fs
        .sprite
        .client()
        .accepted(&Call::new(Method::GET, target))
        .await?;
    Ok(Entries {
        body: response.into_body(),
        parser: Parser::default(),
        ready: VecDeque::new(),
    })
}

impl Entries {
    /// The next entry; `None` behind the last one.
    ///
    /// # Errors
    /// When the listing broke off: what came of it is not all.
    ///
    /// # Cancel safety
    /// Safe: no entry is lost.
    pub async fn next(&mut self) -> Result<Option<Entry>, Error> {
        loop {
            if let Some(entry) = self.ready.pop_front() {
                return Ok(Some(entry));
            }
            match self.body.frame().await {
                Some(Ok(frame)) => {
                    if let Some(bytes) = frame.data_ref() {
                        self.parser.take(bytes, &mut self.ready)?;
                    }
                }
                Some(Err(source)) => {
                    return Err(Error::Interrupted {
                        source: Some(Arc::new(source)),
                    });
                }
                None if self.parser.is_whole() => return Ok(None),
                None => return Err(Error::Interrupted { source: None }),
            }
        }
    }

    /// The absolute path that is listed; known with the first entry.
    #[must_use]
    pub fn path(&self) -> Option<&str> {
        self.parser.path.as_deref()
    }

    /// The entries as a stream.
    pub fn into_stream(self) -> impl Stream<Item = Result<Entry, Error>> {
        stream::unfold(Some(self), |entries| async move {
            let mut entries = entries?;
            match entries.next().await {
                Ok(Some(entry)) => Some((Ok(entry), Some(entries))),
                Ok(None) => None,
                Err(error) => Some((Err(error), None)),
            }
        })
    }
}

/// Finds the objects in the list of an object, `{"…":…,"entries":[{…},{…}],…}`, without holding more than one.
#[derive(Debug, Default)]
struct Parser {
    /// Brackets that are open.
    depth: usize,
    in_text: bool,
    escaped: bool,
    /// The entry at hand.
    entry: Option<BytesMut>,
    begun: bool,
    /// What stands before the list, until it is read.
    head: BytesMut,
    path: Option<String>,
}

/// What stands before the list.
#[derive(Deserialize)]
struct Head {
    #[serde(default)]
    path: Option<String>,
}

impl Parser {
    /// Whether the outermost object has come to its end.
    fn is_whole(&self) -> bool {
        self.begun && self.depth == 0
    }

    /// The head is an object that breaks off where its list begins.
    fn read_head(&mut self) {
        let mut head = self.head.split();
        let end = head.iter().rposition(|byte| *byte == b',').unwrap_or(0);
        head.truncate(end);
        head.extend_from_slice(b"}");
        // Another list than ours may say it elsewhere, or not at all.
        self.path = serde_json::from_slice(&head)
            .ok()
            .and_then(|head: Head| head.path);
    }

    fn take(&mut self, bytes: &[u8], entries: &mut VecDeque<Entry>) -> Result<(), Error> {
        /// An entry is an object in a list in the outermost object.
        const ENTRY: usize = 3;
        for byte in bytes {
            let opens = !self.in_text && matches!(byte, b'{' | b'[');
            if opens {
                self.depth += 1;
                self.begun = true;
                if self.depth == ENTRY {
                    self.entry = Some(BytesMut::new());
                }
                if self.depth == ENTRY - 1 && self.path.is_none() {
                    self.read_head();
                }
            }
            if self.depth == 1 && self.path.is_none() {
                if self.head.len() >= LONGEST {
                    return Err(Error::TooLarge { limit: LONGEST });
                }
                self.head.extend_from_slice(&[*byte]);
            }
            if let Some(entry) = &mut self.entry {
                if entry.len() >= LONGEST {
                    return Err(Error::TooLarge { limit: LONGEST });
                }
                entry.extend_from_slice(&[*byte]);
            }
            match (self.in_text, byte) {
                (true, _) if self.escaped => self.escaped = false,
                (true, b'\\') => self.escaped = true,
                (_, b'"') => self.in_text = !self.in_text,
                (false, b'}' | b']') => {
                    let depth = self.depth.checked_sub(1);
                    self.depth = depth.ok_or_else(|| Error::malformed("a bracket too many"))?;
                    if self.depth == ENTRY - 1
                        && let Some(entry) = self.entry.take()
                    {
                        let entry = serde_json::from_slice(&entry);
                        let entry = entry.map_err(|error| Error::malformed(error.to_string()))?;
                        entries.push_back(entry);
                    }
                }
                _ => {}
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str, size: usize) -> Result<(Vec<String>, bool), Error> {
        let mut parser = Parser::default();
        let mut entries = VecDeque::new();
        for piece in text.as_bytes().chunks(size) {
            parser.take(piece, &mut entries)?;
        }
        let names = entries.into_iter().map(|entry| entry.name).collect();
        Ok((names, parser.is_whole()))
    }

    #[test]
    fn entries_are_found_however_the_text_is_cut() {
        let text = r#"{"path":"/a[{\"","entries":[{"name":"a]}\"","type":"file"},{"name":"b","x":{"y":[1]}}],"count":2}"#;
        for size in 1..text.len() {
            let (names, whole) = parse(text, size).expect("well formed");
            assert_eq!(names, ["a]}\"", "b"], "{size}");
            assert!(whole);
            let mut parser = Parser::default();
            parser
                .take(text.as_bytes(), &mut VecDeque::new())
                .expect("well formed");
            assert_eq!(parser.path.as_deref(), Some("/a[{\""));
            let (_, whole) = parse(&text[..size], size).expect("well formed so far");
            assert!(!whole, "{size}");
        }
        assert_eq!(parse(r#"{"entries":[]}"#, 99).expect("none").0, [""; 0]);
    }

    #[test]
    fn what_is_no_listing_is_an_error() {
        assert!(parse(r#"{"entries":[{"name":1}]}"#, 99).is_err());
        assert!(parse("}", 1).is_err());
        assert!(
            parse(
                &format!(r#"{{"entries":[{{"name":"{}"#, "x".repeat(LONGEST)),
                4096
            )
            .is_err()
        );
    }
}
