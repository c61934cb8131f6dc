//! Which device answers at an address: one bus for memory addresses, one for ports.
//!
//! A bus is put together before the first vCPU runs and never changes afterwards, so vCPUs look devices up
//! without a lock; a device locks what is its own.

use std::sync::Arc;

/// Registers that a guest reads and writes.
///
/// Both come from the guest: any offset within the device's range with any length may be asked for, by
/// several vCPUs at once, and an implementation neither panics nor waits for the guest.
pub trait BusDevice: Send + Sync {
    /// Fills `data` with what is at `offset`.
    fn read(&self, offset: u64, data: &mut [u8]);
    /// Takes `data` written at `offset`.
    fn write(&self, offset: u64, data: &[u8]);
}

/// A range that cannot be given to a device.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BusError {
    /// Nothing is in the range, or it goes past the last address.
    #[error("give a device {length} bytes at {start:#x}")]
    Range {
        /// First address.
        start: u64,
        /// Length in bytes.
        length: u64,
    },
    /// Another device is there.
    #[error("give a device {length} bytes at {start:#x}, where another one is")]
    Taken {
        /// First address.
        start: u64,
        /// Length in bytes.
        length: u64,
    },
}

struct Entry {
    start: u64,
    /// Exclusive.
    end: u64,
    device: Arc<dyn BusDevice>,
}

/// Devices by address.
#[derive(Default)]
pub struct Bus {
    /// In order of address, without overlaps.
    entries: Vec<Entry>,
}

impl Bus {
    /// A bus without devices.
    #[must_use]
    pub fn new() -> Bus {
        Bus::default()
    }

    /// Gives `device` the addresses from `start` on.
    ///
    /// # Errors
    /// [`BusError`]: an impossible range, or one where another device is.
    pub fn insert(
        &mut self,
        start: u64,
        length: u64,
        device: Arc<dyn BusDevice>,
    ) -> Result<(), BusError> {
        let end = match start.checked_add(length) {
            Some(end) if length > 0 => end,
            Some(_) | None => return Err(BusError::Range { start, length }),
        };
        let at = self.entries.partition_point(|entry| entry.end <= start);
        if self.entries.get(at).is_some_and(|next| next.start < end) {
            return Err(BusError::Taken { start, length });
        }
        self.entries.insert(at, Entry { start, end, device });
        Ok(())
    }

    /// Reads at `address`. Where no device is, every bit is one, as on a bus that nobody drives.
    pub fn read(&self, address: u64, data: &mut [u8]) {
        match self.at(address, data.len()) {
            Some((offset, device)) => device.read(offset, data),
            None => data.fill(0xff),
        }
    }

    /// Writes at `address`. Where no device is, nothing happens.
    pub fn write(&self, address: u64, data: &[u8]) {
        if let Some((offset, device)) = self.at(address, data.len()) {
            device.write(offset, data);
        }
    }

    /// The device that has all of the addresses, and the offset in it.
    fn at(&self, address: u64, length: usize) -> Option<(u64, &dyn BusDevice)> {
        let next = self.entries.partition_point(|entry| entry.end <= address);
        let entry = self.entries.get(next)?;
        let end = address.checked_add(length as u64)?;
        (entry.start <= address && end <= entry.end)
            .then(|| (address - entry.start, &*entry.device))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use proptest::prelude::*;

    use super::*;

    /// Answers with its name, and remembers what was written.
    #[derive(Default)]
    struct Named(u8, Mutex<Vec<(u64, Vec<u8>)>>);

    impl BusDevice for Named {
        fn read(&self, _offset: u64, data: &mut [u8]) {
            data.fill(self.0);
        }
        fn write(&self, offset: u64, data: &[u8]) {
            self.1
                .lock()
                .expect("not poisoned")
                .push((offset, data.to_vec()));
        }
    }

    fn read(bus: &Bus, address: u64, length: usize) -> Vec<u8> {
        let mut data = vec![0x55; length];
        bus.read(address, &mut data);
        data
    }

    #[test]
    fn a_device_sees_offsets_in_its_own_range() {
        let device = Arc::new(Named::default());
        let mut bus = Bus::new();
        bus.insert(0x3f8, 8, device.clone()).expect("free");
        bus.write(0x3f8, &[1]);
        bus.write(0x3ff, &[2]);
        bus.write(0x400, &[3]);
        bus.write(0x3f7, &[4]);
        let seen = device.1.lock().expect("not poisoned").clone();
        assert_eq!(seen, vec![(0, vec![1]), (7, vec![2])]);
    }

    #[test]
    fn nobody_answers_with_ones() {
        assert_eq!(read(&Bus::new(), 0, 4), vec![0xff; 4]);
    }

    #[test]
    fn an_access_past_the_end_of_a_device_reaches_none() {
        let mut bus = Bus::new();
        bus.insert(16, 4, Arc::new(Named(1, Mutex::default())))
            .expect("free");
        bus.insert(20, 4, Arc::new(Named(2, Mutex::default())))
            .expect("free");
        assert_eq!(read(&bus, 16, 4), vec![1; 4]);
        assert_eq!(read(&bus, 18, 4), vec![0xff; 4]);
        assert_eq!(read(&bus, u64::MAX, 8), vec![0xff; 8]);
    }

    #[test]
    fn an_impossible_range_is_refused() {
        let mut bus = Bus::new();
        for (start, length) in [(0, 0), (u64::MAX, 2)] {
            let refused = bus.insert(start, length, Arc::new(Named::default()));
            assert_eq!(refused, Err(BusError::Range { start, length }));
        }
    }

    proptest! {
        #[test]
        fn every_address_belongs_to_the_first_that_got_it(
            ranges in proptest::collection::vec((0_u64..60, 0_u64..12), 1..12),
        ) {
            let mut bus = Bus::new();
            let mut owner = [0xff_u8; 80];
            for ((start, length), name) in ranges.into_iter().zip(0_u8..) {
                let wanted = usize::try_from(start).expect("small")
                    ..usize::try_from(start + length).expect("small");
                let free = length > 0 && owner[wanted.clone()].iter().all(|owner| *owner == 0xff);
                let given = bus.insert(start, length, Arc::new(Named(name, Mutex::default())));
                prop_assert_eq!(given.is_ok(), free);
                if free {
                    owner[wanted].fill(name);
                }
            }
            for (address, owner) in (0_u64..).zip(owner) {
                prop_assert_eq!(read(&bus, address, 1), vec![owner]);
            }
        }
    }
}
