//! Archives that the kernel unpacks into its first file system.
//!
//! Owners, times and numbers are the same in every archive: equal content makes equal bytes.
//! Source: Linux Documentation/driver-api/early-userspace/buffer-format.rst.

/// The least that sizes and names are rounded up to.
const ALIGNMENT: usize = 4;

const MAGIC: &str = "070701";
const LAST_NAME: &str = "TRAILER!!!";

// Source: inode(7).
const DIRECTORY: u32 = 0o040_000;
const REGULAR: u32 = 0o100_000;
const CHARACTER_DEVICE: u32 = 0o020_000;

/// An archive in the making.
#[derive(Debug, Default)]
pub(super) struct Archive {
    bytes: Vec<u8>,
    entries: u32,
}

/// A device's numbers.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Device {
    pub(super) major: u32,
    pub(super) minor: u32,
}

/// Content longer than an archive can say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct TooLong;

impl Archive {
    /// A directory. Those above it come first.
    pub(super) fn directory(&mut self, name: &str) {
        self.entry(name, DIRECTORY | 0o755, Device::default(), &[]);
    }

    /// A device that only root uses.
    pub(super) fn device(&mut self, name: &str, device: Device) {
        self.entry(name, CHARACTER_DEVICE | 0o600, device, &[]);
    }

    /// A file that all may read and, if it is a program, start.
    pub(super) fn file(&mut self, name: &str, content: &[u8], mode: u32) -> Result<(), TooLong> {
        if u32::try_from(content.len()).is_err() {
            return Err(TooLong);
        }
        self.entry(name, REGULAR | mode, Device::default(), content);
        Ok(())
    }

    /// The finished archive. Others may follow it in one file.
    pub(super) fn finish(mut self) -> Vec<u8> {
        self.entries = 0;
        self.header(LAST_NAME, 0, 0, 1, Device::default(), 0);
        self.bytes
    }

    fn entry(&mut self, name: &str, mode: u32, device: Device, content: &[u8]) {
        self.entries += 1;
        let links = if mode & DIRECTORY == 0 { 1 } else { 2 };
        let length = u32::try_from(content.len()).expect("checked where there is content");
        self.header(name, self.entries, mode, links, device, length);
        self.bytes.extend_from_slice(content);
        self.align();
    }

    fn header(
        &mut self,
        name: &str,
        number: u32,
        mode: u32,
        links: u32,
        device: Device,
        length: u32,
    ) {
        let (owner, group, time) = (0, 0, 0);
        let on_device = Device::default();
        let name_length = u32::try_from(name.len() + 1).expect("names are ours");
        let check = 0;
        self.bytes.extend_from_slice(MAGIC.as_bytes());
        for field in [
            number,
            mode,
            owner,
            group,
            links,
            time,
            length,
            on_device.major,
            on_device.minor,
            device.major,
            device.minor,
            name_length,
            check,
        ] {
            self.bytes
                .extend_from_slice(format!("{field:08x}").as_bytes());
        }
        self.bytes.extend_from_slice(name.as_bytes());
        self.bytes.push(0);
        self.align();
    }

    fn align(&mut self) {
        let whole = self.bytes.len().next_multiple_of(ALIGNMENT);
        self.bytes.resize(whole, 0);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    type Read = (String, u32, Vec<u8>);

    /// Reads archives back, by the same document.
    fn read(mut bytes: &[u8]) -> Vec<Read> {
        let mut entries = Vec::new();
        while let Some(skip) = bytes.iter().position(|byte| *byte != 0) {
            bytes = &bytes[skip..];
            let at = |n: usize| {
                let text = std::str::from_utf8(&bytes[6 + 8 * n..14 + 8 * n]).expect("digits");
                u32::from_str_radix(text, 16).expect("digits")
            };
            assert_eq!(&bytes[..6], MAGIC.as_bytes());
            let (mode, length, name_length) = (at(1), at(6) as usize, at(11) as usize);
            let name = String::from_utf8(bytes[110..109 + name_length].to_vec()).expect("a name");
            let start = (110 + name_length).next_multiple_of(4);
            let content = bytes[start..start + length].to_vec();
            bytes = &bytes[(start + length).next_multiple_of(4)..];
            if name != LAST_NAME {
                entries.push((name, mode, content));
            }
        }
        entries
    }

    #[test]
    fn archives_in_a_row_are_read_as_one() {
        let mut first = Archive::default();
        first.directory("dev");
        first.device("dev/console", Device { major: 5, minor: 1 });
        let mut second = Archive::default();
        second.file("init", b"program", 0o755).expect("short");
        let entries = read(&[first.finish(), second.finish()].concat());
        let seen: Vec<_> = entries
            .iter()
            .map(|(name, mode, _)| (name.as_str(), *mode))
            .collect();
        assert_eq!(
            seen,
            [
                ("dev", 0o040_755),
                ("dev/console", 0o020_600),
                ("init", 0o100_755)
            ]
        );
        assert_eq!(entries[2].2, b"program");
    }

    proptest! {
        #[test]
        fn files_come_out_as_they_went_in(
            files in proptest::collection::vec(
                ("[a-z]{1,9}", proptest::collection::vec(any::<u8>(), 0..50)), 0..9),
        ) {
            let mut archive = Archive::default();
            for (name, content) in &files {
                archive.file(name, content, 0o644).expect("short");
            }
            let bytes = archive.finish();
            prop_assert_eq!(bytes.len() % ALIGNMENT, 0);
            let back: Vec<_> = read(&bytes).into_iter().map(|(name, _, content)| (name, content)).collect();
            prop_assert_eq!(back, files);
        }
    }
}
