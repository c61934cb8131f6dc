//! What a program told its terminal about keys, mouse and pasting: of no effect on what is shown, but who joins the
//! session needs it.
//!
//! Source: xterm's control sequences, "DEC Private Mode Set".

/// Modes that are remembered: mouse reports and their forms, focus reports, keys instead of a wheel, bracketed paste.
const KNOWN: [u16; 10] = [9, 1000, 1002, 1003, 1004, 1005, 1006, 1007, 1015, 2004];

/// Parameters of one sequence that are read.
const MOST_PARAMETERS: usize = 16;

#[derive(Debug, Default)]
pub(super) struct Modes {
    set: [bool; KNOWN.len()],
    keypad: bool,
    scan: Scan,
}

/// Where in a sequence the last byte was.
#[derive(Debug, Default)]
enum Scan {
    #[default]
    Text,
    Escape,
    Bracket,
    Private(Parameters),
}

#[derive(Debug, Default)]
struct Parameters {
    numbers: [u16; MOST_PARAMETERS],
    last: usize,
}

impl Modes {
    pub(super) fn feed(&mut self, bytes: &[u8]) {
        for &byte in bytes {
            self.scan = match (std::mem::take(&mut self.scan), byte) {
                (_, 0x1b) => Scan::Escape,
                (Scan::Escape, b'[') => Scan::Bracket,
                (Scan::Escape, b'=' | b'>') => {
                    self.keypad = byte == b'=';
                    Scan::Text
                }
                (Scan::Escape, b'c') => {
                    *self = Self::default();
                    Scan::Text
                }
                (Scan::Bracket, b'?') => Scan::Private(Parameters::default()),
                (Scan::Private(mut parameters), b'0'..=b'9' | b';') => {
                    parameters.feed(byte);
                    Scan::Private(parameters)
                }
                (Scan::Private(parameters), b'h' | b'l') => {
                    self.change(&parameters, byte == b'h');
                    Scan::Text
                }
                (Scan::Text | Scan::Escape | Scan::Bracket | Scan::Private(_), _) => Scan::Text,
            };
        }
    }

    fn change(&mut self, parameters: &Parameters, on: bool) {
        let told = &parameters.numbers[..=parameters.last.min(MOST_PARAMETERS - 1)];
        for (mode, set) in KNOWN.iter().zip(&mut self.set) {
            if told.contains(mode) {
                *set = on;
            }
        }
    }

    /// The sequences that set what is set.
    pub(super) fn to_text(&self) -> String {
        let set = KNOWN.iter().zip(self.set).filter(|(_, set)| *set);
        let mut text: String = set.map(|(mode, _)| format!("\x1b[?{mode}h")).collect();
        if self.keypad {
            text.push_str("\x1b=");
        }
        text
    }
}

impl Parameters {
    fn feed(&mut self, byte: u8) {
        match (byte, self.numbers.get_mut(self.last)) {
            (b';', _) => self.last = self.last.saturating_add(1),
            (digit, Some(number)) => {
                *number = number
                    .saturating_mul(10)
                    .saturating_add(u16::from(digit - b'0'));
            }
            (_, None) => {}
        }
    }
}
