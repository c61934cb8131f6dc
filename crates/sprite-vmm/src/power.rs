//! The ports by which a guest ends itself: the keyboard controller's reset line, ACPI's reset register and
//! ACPI's sleep registers.
//!
//! Linux takes the first with `reboot=k`, the second without it, the third to power off.

use std::sync::Arc;

use crate::bus::BusDevice;
use crate::end::{End, EndSignal};

/// The keyboard controller's status and command port.
pub const KEYBOARD_CONTROLLER: u16 = 0x64;
/// The command that pulses the CPU's reset line.
const PULSE_RESET: u8 = 0xfe;

/// ACPI's sleep control register (one byte).
pub const SLEEP_CONTROL: u16 = 0x600;
/// ACPI's sleep status register (one byte).
pub const SLEEP_STATUS: u16 = 0x601;
/// ACPI's reset register (one byte).
pub const RESET: u16 = 0x602;
/// The first of the three.
pub const ACPI_PORTS: u16 = SLEEP_CONTROL;
/// How many ports they are.
pub const ACPI_PORTS_LENGTH: u16 = 3;

/// What ACPI tells the guest to write to the reset register.
pub const RESET_VALUE: u8 = 0x42;
/// What ACPI tells the guest the soft-off state is called.
pub const SOFT_OFF: u8 = 5;

/// The bit of the sleep control register that makes it so, and the place of the state's name.
///
/// Source: ACPI 6.5, 4.8.3.7 "Sleep control and status registers".
const SLEEP_ENABLE: u8 = 1 << 5;
const SLEEP_TYPE_SHIFT: u8 = 2;

const _: () = assert!(SOFT_OFF < 8, "three bits");

/// The keyboard controller, of which only the reset line is there.
#[derive(Debug)]
pub struct KeyboardController {
    end: Arc<EndSignal>,
}

impl KeyboardController {
    /// One that tells `end`.
    #[must_use]
    pub fn new(end: Arc<EndSignal>) -> KeyboardController {
        KeyboardController { end }
    }
}

impl BusDevice for KeyboardController {
    fn read(&self, _offset: u64, data: &mut [u8]) {
        // No key was typed, and the input buffer is empty: the guest need not wait before it writes.
        data.fill(0);
    }

    fn write(&self, _offset: u64, data: &[u8]) {
        if data == [PULSE_RESET] {
            self.end.tell(End::Reset);
        }
    }
}

/// ACPI's registers for sleeping and resetting.
#[derive(Debug)]
pub struct AcpiPower {
    end: Arc<EndSignal>,
}

impl AcpiPower {
    /// One that tells `end`.
    #[must_use]
    pub fn new(end: Arc<EndSignal>) -> AcpiPower {
        AcpiPower { end }
    }
}

impl BusDevice for AcpiPower {
    fn read(&self, _offset: u64, data: &mut [u8]) {
        data.fill(0);
    }

    fn write(&self, offset: u64, data: &[u8]) {
        let &[value] = data else { return };
        if offset == u64::from(SLEEP_CONTROL - ACPI_PORTS) {
            if value == SLEEP_ENABLE | SOFT_OFF << SLEEP_TYPE_SHIFT {
                self.end.tell(End::PowerOff);
            }
        } else if offset == u64::from(RESET - ACPI_PORTS) && value == RESET_VALUE {
            self.end.tell(End::Reset);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn after(write: impl Fn(Arc<EndSignal>)) -> Option<End> {
        let end = Arc::new(EndSignal::new().expect("an event descriptor"));
        write(Arc::clone(&end));
        end.get().cloned()
    }

    #[test]
    fn the_reset_line_restarts() {
        assert_eq!(
            after(|end| KeyboardController::new(end).write(0, &[0xfe])),
            Some(End::Reset)
        );
        assert_eq!(
            after(|end| KeyboardController::new(end).write(0, &[0xff])),
            None
        );
        assert_eq!(
            after(|end| KeyboardController::new(end).write(0, &[0xfe, 0xfe])),
            None
        );
    }

    #[test]
    fn the_keyboard_controller_is_always_ready_for_a_command() {
        let end = Arc::new(EndSignal::new().expect("an event descriptor"));
        let mut status = [0xff];
        KeyboardController::new(end).read(0, &mut status);
        assert_eq!(status[0] & 0b11, 0);
    }

    #[test]
    fn acpi_powers_off_and_resets_with_the_values_it_told() {
        assert_eq!(
            after(|end| AcpiPower::new(end).write(0, &[0x34])),
            Some(End::PowerOff)
        );
        assert_eq!(
            after(|end| AcpiPower::new(end).write(2, &[RESET_VALUE])),
            Some(End::Reset)
        );
    }

    #[test]
    fn any_other_write_changes_nothing() {
        for offset in 0..3 {
            for value in 0..=u8::MAX {
                if (offset, value) != (0, 0x34) && (offset, value) != (2, RESET_VALUE) {
                    let ended = after(|end| AcpiPower::new(end).write(offset, &[value]));
                    assert_eq!(ended, None, "{value:#x} at {offset}");
                }
            }
        }
    }
}
