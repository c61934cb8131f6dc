//! The first serial port: the guest's console.

use std::io;
use std::sync::{Mutex, MutexGuard, PoisonError};

use serde::{Deserialize, Serialize};
use vm_superio::Trigger;
use vm_superio::serial::{NoEvents, Serial as Uart};
use vmm_sys_util::eventfd::EventFd;

use crate::bus::BusDevice;
use crate::console::Console;

/// The first port of the first serial port.
pub const PORT: u16 = 0x3f8;
/// How many ports it has.
pub const PORT_LENGTH: u16 = 8;
/// Its interrupt.
pub const INTERRUPT: u32 = 4;

/// Its interrupt line.
struct Line(EventFd);

impl Trigger for Line {
    type E = io::Error;

    fn trigger(&self) -> io::Result<()> {
        self.0.write(1)
    }
}

/// A 16550A whose output goes to a [`Console`]. Nothing can be typed into it.
pub struct Serial(Mutex<Uart<Line, NoEvents, Console>>);

/// A failure to take a saved serial port up again.
#[derive(Debug, thiserror::Error)]
#[error("restore the serial port: {what}")]
pub struct SerialError {
    what: String,
}

/// The registers of a serial port.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SerialState {
    baud_divisor_low: u8,
    baud_divisor_high: u8,
    interrupt_enable: u8,
    interrupt_identification: u8,
    line_control: u8,
    line_status: u8,
    modem_control: u8,
    modem_status: u8,
    scratch: u8,
    received: Vec<u8>,
}

impl Serial {
    /// A port as after power-on.
    #[must_use]
    pub fn new(interrupt: EventFd, console: Console) -> Serial {
        Serial(Mutex::new(Uart::new(Line(interrupt), console)))
    }

    /// A port that goes on where a saved one was.
    ///
    /// # Errors
    /// [`SerialError`]: a state that no port can be in.
    pub fn restore(
        state: SerialState,
        interrupt: EventFd,
        console: Console,
    ) -> Result<Serial, SerialError> {
        let state = vm_superio::SerialState {
            baud_divisor_low: state.baud_divisor_low,
            baud_divisor_high: state.baud_divisor_high,
            interrupt_enable: state.interrupt_enable,
            interrupt_identification: state.interrupt_identification,
            line_control: state.line_control,
            line_status: state.line_status,
            modem_control: state.modem_control,
            modem_status: state.modem_status,
            scratch: state.scratch,
            in_buffer: state.received,
        };
        Uart::from_state(&state, Line(interrupt), NoEvents, console)
            .map(|uart| Serial(Mutex::new(uart)))
            .map_err(|error| SerialError {
                what: format!("{error:?}"),
            })
    }

    /// Its registers now.
    #[must_use]
    pub fn save(&self) -> SerialState {
        let state = self.uart().state();
        SerialState {
            baud_divisor_low: state.baud_divisor_low,
            baud_divisor_high: state.baud_divisor_high,
            interrupt_enable: state.interrupt_enable,
            interrupt_identification: state.interrupt_identification,
            line_control: state.line_control,
            line_status: state.line_status,
            modem_control: state.modem_control,
            modem_status: state.modem_status,
            scratch: state.scratch,
            received: state.in_buffer,
        }
    }

    /// Writes down the line that has no end yet.
    pub fn put_rest(&self) {
        self.uart().writer_mut().put_rest();
    }

    /// The newest output.
    #[must_use]
    pub fn newest(&self) -> Vec<u8> {
        self.uart().writer().newest()
    }

    fn uart(&self) -> MutexGuard<'_, Uart<Line, NoEvents, Console>> {
        // Registers and a console have no state between two bytes that would be half.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl BusDevice for Serial {
    fn read(&self, offset: u64, data: &mut [u8]) {
        match (data, u8::try_from(offset)) {
            ([byte], Ok(offset)) => *byte = self.uart().read(offset),
            (data, _) => data.fill(0xff),
        }
    }

    fn write(&self, offset: u64, data: &[u8]) {
        if let (&[byte], Ok(offset)) = (data, u8::try_from(offset)) {
            // It fails only if the interrupt's counter is full, and then the interrupt is pending already.
            let _ = self.uart().write(offset, byte);
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use vmm_sys_util::eventfd::EFD_NONBLOCK;

    use super::*;

    fn console() -> Console {
        Console::new(tempfile::tempfile().expect("a file")).expect("a console")
    }

    fn interrupt() -> EventFd {
        EventFd::new(EFD_NONBLOCK).expect("an event descriptor")
    }

    #[test]
    fn what_the_guest_writes_is_on_the_console() {
        let serial = Serial::new(interrupt(), console());
        for byte in b"hello\nwor" {
            serial.write(0, &[*byte]);
        }
        assert_eq!(serial.newest(), b"hello\n");
        serial.put_rest();
        assert_eq!(serial.newest(), b"hello\nwor");
    }

    #[test]
    fn an_interrupt_is_raised_when_the_guest_asked_for_it() {
        let line = interrupt();
        let serial = Serial::new(line.try_clone().expect("cloned"), console());
        serial.write(0, b"a");
        assert!(line.read().is_err());
        serial.write(1, &[0b10]);
        serial.write(0, b"b");
        assert!(line.read().is_ok());
    }

    proptest! {
        #[test]
        fn a_restored_port_is_the_saved_one(
            writes in proptest::collection::vec((0_u64..16, any::<u8>()), 0..60),
        ) {
            let serial = Serial::new(interrupt(), console());
            for (offset, byte) in writes {
                serial.write(offset, &[byte]);
                serial.read(offset, &mut [0]);
            }
            let saved = serial.save();
            let restored = Serial::restore(saved.clone(), interrupt(), console()).expect("restored");
            prop_assert_eq!(restored.save(), saved);
        }
    }
}
