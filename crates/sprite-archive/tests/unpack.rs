//! Archives on a real file system: what comes out is what went in, and nothing is reached outside of the top.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::fs::{self, File};
use std::io::Read;
use std::os::fd::AsFd;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::Path;
use std::process::Command;

use sprite_archive::{
    Damage, Entry, Kind, Note, Progress, ReadError, Reader, Target, Time, UnpackError, Unpacked,
    Whole, Writer, unpack,
};
use tempfile::TempDir;

fn into(top: &Path, archive: impl Read) -> Result<Unpacked, UnpackError> {
    let directory = File::open(top).unwrap();
    let target = Target {
        top: directory.as_fd(),
        fresh: true,
        modes: 0o7777,
    };
    unpack(&mut Reader::new(archive), target, &mut |_| {})
}

fn entry(name: &str, kind: Kind) -> Entry {
    Entry {
        name: name.as_bytes().to_vec(),
        kind,
        mode: 0o640,
        mtime: Time {
            seconds: 1_700_000_000,
            nanos: 123_456_789,
        },
    }
}

fn file(size: u64) -> Kind {
    Kind::File { size }
}

fn link(target: &str) -> Kind {
    Kind::Symlink {
        target: target.as_bytes().to_vec(),
    }
}

fn other(target: &str) -> Kind {
    Kind::HardLink {
        target: target.as_bytes().to_vec(),
    }
}

/// Entries as an archive; files hold `x`es.
fn archive(entries: &[Entry]) -> Vec<u8> {
    let mut writer = Writer::new(Vec::new());
    for entry in entries {
        writer.entry(entry).unwrap();
        if let Kind::File { size } = entry.kind {
            let whole = writer.content(size, &mut std::io::repeat(b'x'), |_| {});
            assert_eq!(whole.unwrap(), Whole::Yes);
        }
    }
    writer.finish().unwrap()
}

fn refusal(top: &Path, entries: &[Entry]) -> String {
    into(top, &archive(entries)[..]).unwrap_err().to_string()
}

#[test]
fn what_comes_out_is_what_went_in() {
    let top = TempDir::new().unwrap();
    let long = "n".repeat(120);
    let deep = format!("{long}/{long}/{long}");
    let closed = Entry {
        mode: 0o500,
        ..entry("closed", Kind::Directory)
    };
    let entries = [
        entry("./", Kind::Directory),
        closed,
        entry("closed/file", file(5)),
        entry(&deep, file(1000)),
        entry("line\nfeed", file(0)),
        entry("link", link("closed/file")),
        entry("away", link(&format!("/{deep}"))),
        entry("other", other("closed/file")),
    ];
    let done = into(top.path(), &archive(&entries)[..]).unwrap();
    let counts = (done.files, done.directories, done.links, done.bytes);
    assert_eq!(counts, (4, 1, 2, 1005));
    assert_eq!(done.systems.len(), 1);
    let of = |name: &str| fs::symlink_metadata(top.path().join(name)).unwrap();
    for name in ["", "closed", "closed/file", "link", &deep] {
        let seen = of(name);
        assert_eq!(
            (seen.mtime(), seen.mtime_nsec()),
            (1_700_000_000, 123_456_789),
            "{name}"
        );
    }
    assert_eq!(of("closed").mode() & 0o7777, 0o500);
    assert_eq!(of("closed/file").mode() & 0o7777, 0o640);
    assert_eq!(of("other").ino(), of("closed/file").ino());
    assert_eq!(of("line\nfeed").len(), 0);
    assert_eq!(fs::read(top.path().join("link")).unwrap(), b"xxxxx");
    // Once more over itself: all is replaced.
    into(top.path(), &archive(&entries)[..]).unwrap();
}

#[test]
fn other_programs_read_what_is_written_and_write_what_is_read() {
    let top = TempDir::new().unwrap();
    let place = |name: &str| top.path().join(name);
    fs::create_dir_all(place("from/sub")).unwrap();
    fs::write(place("from/sub").join("f".repeat(200)), vec![7; 70_000]).unwrap();
    fs::write(place("from/a"), "a").unwrap();
    fs::hard_link(place("from/a"), place("from/b")).unwrap();
    symlink("x".repeat(150), place("from/link")).unwrap();
    let same = |there: &str| {
        let diff = Command::new("diff")
            .args(["-r", "--no-dereference"])
            .args([place("from"), place(there)])
            .status();
        assert!(diff.unwrap().success(), "{there}");
    };
    for format in ["gnu", "pax", "posix"] {
        let made = Command::new("tar")
            .args(["--format", format, "-C"])
            .arg(place("from"))
            .args(["-c", "."])
            .output()
            .unwrap();
        assert!(made.status.success());
        fs::create_dir(place(format)).unwrap();
        into(&place(format), &made.stdout[..]).unwrap();
        same(format);
    }
    let long = "f".repeat(200);
    let entries = [
        entry("sub", Kind::Directory),
        entry(&format!("sub/{long}"), file(3)),
        entry("l", link(&long)),
    ];
    fs::write(place("ours"), archive(&entries)).unwrap();
    fs::create_dir(place("theirs")).unwrap();
    let read = Command::new("tar")
        .arg("-C")
        .arg(place("theirs"))
        .arg("-xf")
        .arg(place("ours"))
        .status();
    assert!(read.unwrap().success());
    let read = fs::read(place("theirs/sub").join(&long)).unwrap();
    assert_eq!(read, b"xxx");
    assert_eq!(fs::read_link(place("theirs/l")).unwrap(), Path::new(&long));
    assert_eq!(
        fs::metadata(place("theirs/sub")).unwrap().mtime(),
        1_700_000_000
    );
}

#[test]
fn nothing_outside_of_the_top_is_reached() {
    let outer = TempDir::new().unwrap();
    let outside = outer.path().join("outside");
    fs::create_dir(&outside).unwrap();
    fs::write(outside.join("kept"), "kept").unwrap();
    fs::set_permissions(outside.join("kept"), fs::Permissions::from_mode(0o600)).unwrap();
    let absolute = outside.to_str().unwrap();
    let before = fs::metadata(outside.join("kept")).unwrap();
    let cases: [&[Entry]; 10] = [
        &[entry("../outside/kept", file(1))],
        &[entry("a/../../outside/kept", file(1))],
        &[entry(&format!("{absolute}/kept"), file(1))],
        &[entry("..", Kind::Directory)],
        // A link that comes with the archive, and is gone through then.
        &[entry("l", link("../outside")), entry("l/kept", file(1))],
        &[entry("l", link(absolute)), entry("l/new", Kind::Directory)],
        &[entry("l", link(absolute)), entry("l", Kind::Directory)],
        &[entry("l", link(absolute)), entry("l/new", link("x"))],
        &[entry("h", other("../outside/kept"))],
        &[entry("l", link(absolute)), entry("h", other("l/kept"))],
    ];
    for entries in cases {
        let top = outer.path().join("top");
        fs::create_dir(&top).unwrap();
        let why = refusal(&top, entries);
        let named = entries.last().unwrap().shown();
        assert!(
            why.contains(&format!("\"{named}")),
            "{why} does not name {named}"
        );
        fs::remove_dir_all(&top).unwrap();
    }
    // What has the name of a file is replaced, never written through; whether it came with the archive or before.
    let top = outer.path().join("top");
    fs::create_dir(&top).unwrap();
    symlink(outside.join("kept"), top.join("before")).unwrap();
    fs::hard_link(outside.join("kept"), top.join("name")).unwrap();
    let entries = [
        entry("with", link("../outside/kept")),
        entry("with", file(9)),
        entry("before", file(9)),
        entry("name", file(9)),
    ];
    into(&top, &archive(&entries)[..]).unwrap();
    for name in ["with", "before", "name"] {
        assert_eq!(fs::read(top.join(name)).unwrap(), b"xxxxxxxxx", "{name}");
        assert!(fs::symlink_metadata(top.join(name)).unwrap().is_file());
    }
    let after = fs::metadata(outside.join("kept")).unwrap();
    assert_eq!(fs::read(outside.join("kept")).unwrap(), b"kept");
    assert_eq!(
        (before.mtime(), before.mode()),
        (after.mtime(), after.mode())
    );
    assert_eq!(fs::read_dir(&outside).unwrap().count(), 1);
}

/// A header with a field set to these bytes, and what follows it.
fn header(kind: tar::EntryType, size: &[u8], name: &str) -> Vec<u8> {
    let mut header = tar::Header::new_ustar();
    header.set_path(name).unwrap();
    header.set_mode(0o644);
    header.set_mtime(1);
    header.set_entry_type(kind);
    header.as_old_mut().size[..size.len()].copy_from_slice(size);
    header.set_cksum();
    header.as_bytes().to_vec()
}

#[test]
fn what_is_not_taken_is_named_and_takes_no_memory() {
    use tar::EntryType;
    let top = TempDir::new().unwrap();
    let huge = b"77777777777\0";
    for (bytes, expected) in [
        (header(EntryType::Char, b"0\0", "tty"), Damage::Kind),
        (header(EntryType::Block, b"0\0", "sda"), Damage::Kind),
        (header(EntryType::Fifo, b"0\0", "pipe"), Damage::Kind),
        (header(EntryType::new(b'?'), b"0\0", "what"), Damage::Kind),
        (header(EntryType::GNUSparse, b"0\0", "bomb"), Damage::Sparse),
        (header(EntryType::XHeader, huge, "x"), Damage::LongExtension),
        (
            header(EntryType::GNULongName, huge, "x"),
            Damage::LongExtension,
        ),
        (header(EntryType::Regular, huge, "cut"), Damage::CutOff),
        (header(EntryType::Regular, b"9x9", "number"), Damage::Number),
        (vec![7; 512], Damage::Checksum),
        (vec![0; 511], Damage::CutOff),
        (Vec::new(), Damage::CutOff),
        (
            archive(&[entry(&"x/".repeat(2100), Kind::Directory)]),
            Damage::LongName,
        ),
    ] {
        match into(top.path(), &bytes[..]).unwrap_err() {
            UnpackError::Read(ReadError::Damaged { damage, .. }) => assert_eq!(damage, expected),
            other => panic!("{other:?} is not {expected:?}"),
        }
    }
    // Cut off anywhere, it is no archive; and no half of a file has a name.
    let whole = archive(&[entry("one", file(700)), entry("two", file(1))]);
    for end in (0..whole.len() - 1024).step_by(64) {
        let top = TempDir::new().unwrap();
        into(top.path(), &whole[..end]).unwrap_err();
        for found in fs::read_dir(top.path()).unwrap() {
            let length = found.unwrap().metadata().unwrap().len();
            assert!(length == 700 || length == 1, "{length} after {end}");
        }
    }
    // As deep as may be, and one deeper.
    let deep = |depth| archive(&[entry(&vec!["d"; depth].join("/"), Kind::Directory)]);
    into(top.path(), &deep(1000)[..]).unwrap();
    into(top.path(), &deep(1001)[..]).unwrap_err();
    // A directory is not replaced by a file, nor a file by a directory.
    assert!(refusal(top.path(), &[entry("d", file(1))]).contains("put in place \"d\""));
    let twice = [entry("f", file(1)), entry("f/below", file(1))];
    assert!(refusal(top.path(), &twice).contains("f/below"));
}

#[test]
fn a_file_that_gets_shorter_is_filled_up_and_one_that_grows_is_cut() {
    let mut writer = Writer::new(Vec::new());
    writer.entry(&entry("short", file(600))).unwrap();
    let whole = writer.content(600, &mut &b"abc"[..], |_| {}).unwrap();
    assert_eq!(whole, Whole::Padded);
    writer.entry(&entry("long", file(2))).unwrap();
    let whole = writer.content(2, &mut &b"abc"[..], |_| {}).unwrap();
    assert_eq!(whole, Whole::Yes);
    let bytes = writer.finish().unwrap();
    let top = TempDir::new().unwrap();
    into(top.path(), &bytes[..]).unwrap();
    let short = fs::read(top.path().join("short")).unwrap();
    assert_eq!(
        (&short[..3], short.len(), short[599]),
        (&b"abc"[..], 600, 0)
    );
    assert_eq!(fs::read(top.path().join("long")).unwrap(), b"ab");
}

#[test]
fn what_is_told_beside_the_entries_is_heard_and_other_programs_pass_over_it() {
    let top = TempDir::new().unwrap();
    let mut writer = Writer::new(Vec::new());
    writer
        .note(&Note::LeftOut("run/socket".to_owned()))
        .unwrap();
    writer.entry(&entry("file", file(0))).unwrap();
    writer.note(&Note::Padded("file".to_owned())).unwrap();
    let mut failing = writer.into_inner();
    let mut heard = Vec::new();
    let directory = File::open(top.path()).unwrap();
    let target = Target {
        top: directory.as_fd(),
        fresh: false,
        modes: 0o777,
    };
    let mut whole = failing.clone();
    whole.resize(whole.len() + 1024, 0);
    unpack(&mut Reader::new(&whole[..]), target, &mut |told| {
        if let Progress::Note(note) = told {
            heard.push(note);
        }
    })
    .unwrap();
    let expected = [
        Note::LeftOut("run/socket".to_owned()),
        Note::Padded("file".to_owned()),
    ];
    assert_eq!(heard, expected);
    fs::write(top.path().join("whole.tar"), &whole).unwrap();
    let listed = Command::new("tar")
        .arg("-tf")
        .arg(top.path().join("whole.tar"))
        .output()
        .unwrap();
    assert_eq!(String::from_utf8_lossy(&listed.stdout), "file\n");
    assert!(listed.status.success());
    // Why it broke off is the error.
    let mut writer = Writer::new(Vec::new());
    writer
        .note(&Note::Failed("open x: denied".to_owned()))
        .unwrap();
    failing.extend(writer.into_inner());
    let why = unpack(&mut Reader::new(&failing[..]), target, &mut |_| {}).unwrap_err();
    assert_eq!(why.to_string(), "open x: denied");
}
