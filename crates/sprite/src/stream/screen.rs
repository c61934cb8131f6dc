//! What a program in the sprite has turned on in our terminal, so that it can be turned off when we let go.
//!
//! Whoever detaches from an editor would otherwise keep its alternate screen, its mouse reports and its hidden
//! cursor. Only the private modes below are followed. Source: XTerm Control Sequences, "DEC Private Mode Set".

/// Modes that are off in a terminal at rest, in the order in which they are turned off.
const USUALLY_OFF: [u16; 12] = [
    1, 9, 1000, 1002, 1003, 1004, 1005, 1006, 1015, 2004, 47, 1049,
];
/// The mode of the visible cursor, which is on at rest.
const CURSOR: u16 = 25;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Text,
    Escape,
    Bracket,
    /// Within `ESC [ ?`, reading numbers.
    Private,
}

/// Follows the terminal's bytes.
#[derive(Debug)]
pub(super) struct Screen {
    state: State,
    numbers: Vec<u16>,
    on: [bool; USUALLY_OFF.len()],
    cursor_hidden: bool,
}

impl Screen {
    pub(super) fn new() -> Self {
        let on = [false; USUALLY_OFF.len()];
        Self {
            state: State::Text,
            numbers: Vec::new(),
            on,
            cursor_hidden: false,
        }
    }

    /// Reads what is shown.
    pub(super) fn watch(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.state = match (self.state, *byte) {
                (_, 0x1b) => State::Escape,
                (State::Escape, b'[') => State::Bracket,
                // Full reset.
                (State::Escape, b'c') => {
                    *self = Self::new();
                    State::Text
                }
                (State::Bracket, b'?') => {
                    self.numbers.clear();
                    self.numbers.push(0);
                    State::Private
                }
                (State::Private, digit @ b'0'..=b'9') => {
                    let number = self.numbers.last_mut().expect("begun with one");
                    *number = number
                        .saturating_mul(10)
                        .saturating_add(u16::from(digit - b'0'));
                    State::Private
                }
                // More than any program sets at once is not worth the memory.
                (State::Private, b';') if self.numbers.len() < 32 => {
                    self.numbers.push(0);
                    State::Private
                }
                (State::Private, end @ (b'h' | b'l')) => {
                    self.set(end == b'h');
                    State::Text
                }
                (State::Text | State::Escape | State::Bracket | State::Private, _) => State::Text,
            };
        }
    }

    fn set(&mut self, on: bool) {
        for number in &self.numbers {
            if *number == CURSOR {
                self.cursor_hidden = !on;
            }
            if let Some(index) = USUALLY_OFF.iter().position(|mode| mode == number) {
                self.on[index] = on;
            }
        }
    }

    /// The bytes that bring the terminal back to rest; empty if it is.
    pub(super) fn rest(&self) -> Vec<u8> {
        let mut bytes = String::new();
        for (mode, on) in USUALLY_OFF.iter().zip(self.on) {
            if on {
                bytes.push_str(&format!("\u{1b}[?{mode}l"));
            }
        }
        if self.cursor_hidden {
            bytes.push_str("\u{1b}[?25h");
        }
        if !bytes.is_empty() {
            bytes.push_str("\u{1b}[0m");
        }
        bytes.into_bytes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_on_is_turned_off_and_no_more() {
        let mut screen = Screen::new();
        screen.watch(b"plain \x1b[1;31mtext\x1b[0m");
        assert!(screen.rest().is_empty());
        // Split anywhere, as the network likes.
        for piece in [&b"\x1b"[..], b"[?10", b"49;2004h\x1b[?2", b"5l"] {
            screen.watch(piece);
        }
        assert_eq!(screen.rest(), b"\x1b[?2004l\x1b[?1049l\x1b[?25h\x1b[0m");
        screen.watch(b"\x1b[?1049l\x1b[?2004l\x1b[?25h");
        assert!(screen.rest().is_empty());
    }

    #[test]
    fn a_full_reset_is_rest() {
        let mut screen = Screen::new();
        screen.watch(b"\x1b[?1049h\x1bc");
        assert!(screen.rest().is_empty());
    }

    #[test]
    fn endless_numbers_are_harmless() {
        let mut screen = Screen::new();
        screen.watch(b"\x1b[?99999999999999");
        screen.watch(&b";1".repeat(10_000));
        screen.watch(b"h");
        assert!(screen.numbers.len() <= 32);
    }
}
