//! What hostile bytes reach, as one function of bytes: `fuzz/` hands it a fuzzer's, tests hand it seeds and what comes
//! of the seeds by chance.

use std::io::Read;

use crate::{Entry, Item, Kind, Note, Reader, Time, Writer};

/// Reads the bytes as an archive, in one piece and byte by byte, and writes again what was read.
///
/// # Panics
/// What is read depends on how it comes, or is not what is written again.
pub fn archive(bytes: &[u8]) {
    let items = items(bytes);
    assert_eq!(items, self::items(Slowly(bytes)));
    let mut writer = Writer::new(Vec::new());
    for (item, content) in &items {
        match item {
            Item::Entry(entry) => {
                writer.entry(entry).expect("memory takes it");
                if let Kind::File { size } = entry.kind {
                    // One that was cut off claims more than there is.
                    let size = size.min(content.len() as u64);
                    writer
                        .content(size, &mut &content[..], |_| {})
                        .expect("memory takes it");
                }
            }
            Item::Note(note) => writer.note(note).expect("memory takes it"),
        }
        if let Item::Entry(Entry {
            kind: Kind::File { size },
            ..
        }) = item
            && *size > content.len() as u64
        {
            return;
        }
    }
    let again = writer.finish().expect("memory takes it");
    let again = self::items(&again[..]);
    assert_eq!(again.len(), items.len());
    for ((again, content), (item, first)) in again.iter().zip(&items) {
        assert_eq!(content, first);
        match (again, item) {
            (Item::Entry(again), Item::Entry(first)) => {
                let trim = |name: &[u8]| name.strip_suffix(b"/").unwrap_or(name).to_vec();
                assert_eq!(trim(&again.name), trim(&first.name));
                assert_eq!((again.mode, again.mtime), (first.mode, first.mtime));
            }
            // Long texts are cut.
            (Item::Note(_), Item::Note(_)) => {}
            (again, first) => panic!("{again:?} is not {first:?}"),
        }
    }
}

/// All that can be read before the end or an error, each with its content.
fn items(bytes: impl Read) -> Vec<(Item, Vec<u8>)> {
    let mut reader = Reader::new(bytes);
    let mut items = Vec::new();
    while let Ok(Some(item)) = reader.next_item() {
        let mut content = Vec::new();
        if matches!(&item, Item::Entry(_)) {
            reader.read_to_end(&mut content).expect("it is in memory");
        }
        items.push((item, content));
    }
    items
}

struct Slowly<'a>(&'a [u8]);

impl Read for Slowly<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let most = buffer.len().min(1);
        self.0.read(&mut buffer[..most])
    }
}

/// A beginning for a fuzzer.
#[derive(Debug, Clone)]
pub struct Seed {
    /// What it is.
    pub name: &'static str,
    /// An archive.
    pub bytes: Vec<u8>,
}

/// Archives with everything in them that the reader knows.
///
/// # Panics
/// Never: memory takes them.
#[must_use]
pub fn seeds() -> Vec<Seed> {
    let long = vec![b'n'; 300];
    let entry = |name: &[u8], kind| Entry {
        name: name.to_vec(),
        kind,
        mode: 0o754,
        mtime: Time {
            seconds: 1_700_000_000,
            nanos: 0,
        },
    };
    let link = |target: &[u8]| Kind::Symlink {
        target: target.to_vec(),
    };
    let fine = Time {
        seconds: -2,
        nanos: 5,
    };
    let tree = [
        entry(b"d", Kind::Directory),
        entry(b"d/f", Kind::File { size: 5 }),
    ];
    let names = [entry(&long, Kind::Directory), entry(b"l", link(&long))];
    let other = Kind::HardLink {
        target: b"a".to_vec(),
    };
    let others = [
        entry(b"a", Kind::File { size: 513 }),
        entry(b"b", other),
        Entry {
            mtime: fine,
            ..entry(b"../c", link(b"/etc"))
        },
    ];
    let seed = |name, bytes| Seed { name, bytes };
    vec![
        seed("tree", write(&tree)),
        seed("long-names", write(&names)),
        seed("links", write(&others)),
        seed("gnu", gnu(&long)),
    ]
}

fn write(entries: &[Entry]) -> Vec<u8> {
    let mut writer = Writer::new(Vec::new());
    for entry in entries {
        writer.entry(entry).expect("memory takes it");
        if let Kind::File { size } = entry.kind {
            writer
                .content(size, &mut std::io::repeat(7), |_| {})
                .expect("memory takes it");
        }
    }
    let note = Note::LeftOut("a socket".to_owned());
    writer.note(&note).expect("memory takes it");
    writer.finish().expect("memory takes it")
}

/// As GNU writes long names.
fn gnu(long: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for (kind, name) in [
        (tar::EntryType::GNULongName, true),
        (tar::EntryType::Regular, false),
    ] {
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(kind);
        header.set_mode(0o644);
        header.set_mtime(1);
        header.set_size(if name { long.len() as u64 + 1 } else { 0 });
        header.set_cksum();
        bytes.extend_from_slice(header.as_bytes());
        if name {
            bytes.extend_from_slice(long);
            bytes.resize(bytes.len().next_multiple_of(crate::BLOCK), 0);
        }
    }
    bytes.resize(bytes.len() + 2 * crate::BLOCK, 0);
    bytes
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use proptest::sample::{Index, select};

    use super::{archive, items, seeds};

    #[test]
    fn seeds_are_read_whole() {
        let seeds = seeds();
        let counts: Vec<usize> = seeds
            .iter()
            .map(|seed| items(&seed.bytes[..]).len())
            .collect();
        assert_eq!(counts, [3, 3, 4, 1]);
        for seed in seeds {
            archive(&seed.bytes);
            for end in (0..seed.bytes.len()).step_by(101) {
                archive(&seed.bytes[..end]);
            }
        }
    }

    proptest! {
        #[test]
        fn nothing_that_comes_of_a_seed_breaks_a_promise(
            seed in select(seeds()),
            changes in prop::collection::vec((any::<Index>(), any::<u8>()), 0..6),
            summed in any::<bool>(),
        ) {
            let mut bytes = seed.bytes;
            for (at, byte) in changes {
                let at = at.index(bytes.len());
                bytes[at] = byte;
            }
            if summed {
                // Else few changes get past the checksum.
                sum(&mut bytes);
            }
            archive(&bytes);
        }
    }

    fn sum(bytes: &mut [u8]) {
        for block in bytes.chunks_exact_mut(crate::BLOCK) {
            let mut header = tar::Header::new_old();
            header.as_mut_bytes().copy_from_slice(block);
            if header.cksum().is_ok() && block[..257].iter().any(|byte| *byte != 0) {
                header.set_cksum();
                block.copy_from_slice(header.as_bytes());
            }
        }
    }
}
