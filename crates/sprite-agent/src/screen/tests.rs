use super::*;
use proptest::prelude::*;

const SIZE: TtySize = TtySize { rows: 6, cols: 20 };

fn screen(output: &str) -> Screen {
    let mut screen = Screen::new(SIZE).expect("small");
    screen.feed(output.as_bytes());
    screen
}

/// What another terminal shows after it was sent what `screen` draws.
fn shown(screen: &mut Screen, size: TtySize) -> avt::Terminal {
    let drawn = String::from_utf8(screen.draw().expect("a model")).expect("text");
    let (cols, rows) = (size.cols.into(), size.rows.into());
    let mut other = avt::Terminal::with_scrollback(cols, rows, Some(100)).expect("a size");
    other.feed("\x1b[31m\x1b[3;4r");
    other.feed(drawn.as_str());
    other
}

fn lines(terminal: &avt::Terminal) -> Vec<String> {
    let lines = terminal.screen().visible_lines();
    lines
        .map(|line| line.text().trim_end().to_owned())
        .collect()
}

#[test]
fn a_screen_is_drawn_as_it_is() {
    let mut screen = screen("one\r\n\x1b[1;32mtwo\x1b[0m\r\n--------------\x1b[2;5Hx");
    let other = shown(&mut screen, SIZE);
    assert_eq!(
        lines(&other),
        ["one", "two x", "--------------", "", "", ""]
    );
    let position = other.cursor_position();
    assert_eq!((position.row, position.col), (1, 5));
    let cells = other.screen().line(1).expect("a line").cells();
    assert_eq!(cells[0].pen().foreground(), Some(avt::Color::Indexed(2)));
    assert!(cells[0].pen().is_bold() && cells[4].pen().is_default());
}

#[test]
fn long_lines_are_broken_anew_at_another_width() {
    let text = "the quick brown fox jumps over the lazy dog";
    let mut screen = screen(text);
    assert_eq!(lines(&shown(&mut screen, SIZE))[0], text[..20].trim_end());
    for cols in [10, 40, 60] {
        let size = TtySize { rows: 6, cols };
        screen.resize(size);
        let other = shown(&mut screen, size);
        let all: Vec<String> = other.screen().all_lines().map(|line| line.text()).collect();
        let broken: String = all.concat().split_whitespace().collect();
        assert_eq!(broken, text.replace(' ', ""), "{cols}");
        let longest = all.iter().map(|line| line.trim_end().len()).max();
        assert!(
            longest <= Some(cols.into()) && longest >= Some(usize::from(cols).min(text.len()) - 5)
        );
    }
}

#[test]
fn the_other_screen_is_drawn_over_the_first() {
    let mut screen = screen("shell\r\n\x1b[?1049h\x1b[H\x1b[2Jeditor");
    let mut other = shown(&mut screen, SIZE);
    assert_eq!(lines(&other)[0], "editor");
    other.feed("\x1b[?1049l");
    assert_eq!(lines(&other)[0], "shell");
}

#[test]
fn what_scrolled_away_is_above() {
    let output: String = (0..20).map(|i| format!("line {i}\r\n")).collect();
    let mut screen = screen(&output);
    let drawn = String::from_utf8(screen.draw().expect("a model")).expect("text");
    let mut other = avt::Terminal::with_scrollback(20, 6, Some(100)).expect("a size");
    other.feed(drawn.as_str());
    let all: Vec<String> = other.screen().text();
    for i in 0..20 {
        assert!(all.contains(&format!("line {i}")), "{i}: {all:?}");
    }
    assert_eq!(
        lines(&other)[..5],
        (15..20).map(|i| format!("line {i}")).collect::<Vec<_>>()
    );
}

#[test]
fn modes_of_mouse_and_paste_are_told_again() {
    let mut screen = screen("\x1b[?1000;1006h\x1b[?2004h\x1b=\x1b[?1000l");
    let drawn = String::from_utf8(screen.draw().expect("a model")).expect("text");
    assert!(drawn.contains("\x1b[?1006h\x1b[?2004h\x1b="), "{drawn:?}");
    screen.feed(b"\x1bc");
    let drawn = String::from_utf8(screen.draw().expect("a model")).expect("text");
    assert!(!drawn.contains("2004"), "{drawn:?}");
}

/// What follows the drawing goes on where the output was cut: in a character, in a sequence.
#[test]
fn output_is_cut_anywhere() {
    let whole = "a\u{20ac}b\x1b[31mc\u{1f600}d\x1b]0;title\x07e\x1b[?2004hf\u{e9}";
    let mut uncut = screen(whole);
    let want = lines(&shown(&mut uncut, SIZE));
    for cut in 0..whole.len() {
        let (before, after) = whole.as_bytes().split_at(cut);
        let mut screen = Screen::new(SIZE).expect("small");
        screen.feed(before);
        let mut all = screen.draw().expect("a model");
        all.extend_from_slice(after);
        let mut other = avt::Terminal::new(20, 6).expect("a size");
        other.feed(String::from_utf8(all).expect("whole characters").as_str());
        assert_eq!(lines(&other), want, "cut at {cut}");
        screen.feed(after);
        assert_eq!(lines(&shown(&mut screen, SIZE)), want, "cut at {cut}");
    }
}

#[test]
fn a_size_that_is_too_large_has_no_model() {
    let size = |rows, cols| TtySize { rows, cols };
    assert!(Screen::new(size(200, 320)).is_some());
    assert!(Screen::new(size(201, 320)).is_none());
    assert!(Screen::new(size(u16::MAX, u16::MAX)).is_none());
    assert!(Screen::new(size(0, 0)).is_some());
    let mut screen = screen("x");
    screen.resize(size(u16::MAX, u16::MAX));
    assert!(screen.draw().is_none());
}

/// A few bytes that ask for much are not paid for again and again.
#[test]
fn a_screen_that_takes_too_long_is_given_up() {
    let mut screen = Screen::new(TtySize {
        rows: 200,
        cols: 320,
    })
    .expect("as large as may be");
    screen.feed("x\x1b[65535b".repeat(20_000).as_bytes());
    assert!(screen.draw().is_none());
}

fn hostile() -> impl Strategy<Value = Vec<u8>> {
    let sequence = prop_oneof![
        Just(b"\x1b[".to_vec()),
        Just(b"\x1b[?".to_vec()),
        Just(b"\x1b]".to_vec()),
        Just(b"\x1bP".to_vec()),
        Just(b"\x1b[?1049h".to_vec()),
        Just(b"\x1b[?1049l".to_vec()),
        Just(b"\r\n".to_vec()),
        (
            any::<u16>(),
            any::<u16>(),
            prop::sample::select(b"ABCDEGHJKLMPSTXZ@bdfghlmrsu`".to_vec())
        )
            .prop_map(|(a, b, end)| {
                let mut bytes = format!("\x1b[{};{}", a % 90, b).into_bytes();
                bytes.push(end);
                bytes
            }),
        prop::collection::vec(any::<u8>(), 0..12),
        "\\PC{0,30}".prop_map(String::into_bytes),
    ];
    prop::collection::vec(sequence, 0..60).prop_map(|parts| parts.concat())
}

proptest! {
    /// Whatever a program writes, however its terminal is resized: nothing panics, and what is drawn is drawn so
    /// again.
    #[test]
    fn hostile_output_is_drawn_or_given_up(
        steps in prop::collection::vec((hostile(), 1..60u16, 1..60u16), 1..4)
    ) {
        let mut screen = Screen::new(SIZE).expect("small");
        for (output, rows, cols) in steps {
            screen.feed(&output);
            screen.resize(TtySize { rows, cols });
            prop_assert!(screen.draw().is_some());
        }
    }
}
