//! Extended headers: records of a length, a keyword and a value. Source: POSIX.1-2017, pax, "pax Extended Header".

use crate::entry::Time;

/// The next record of an extended header, and what follows it.
pub(crate) type Split<'a> = (&'a [u8], &'a [u8], &'a [u8]);

/// Keyword, value and the rest; `None` if there is no record. Values may hold anything, line feeds too.
pub(crate) fn split(bytes: &[u8]) -> Option<Split<'_>> {
    /// More digits are no length of a header.
    const DIGITS: usize = 10;
    let blank = bytes.iter().take(DIGITS + 1).position(|b| *b == b' ')?;
    let length: usize = number(&bytes[..blank])?.try_into().ok()?;
    let record = bytes.get(..length)?.get(blank + 1..)?;
    let record = record.strip_suffix(b"\n")?;
    let equals = record.iter().position(|b| *b == b'=')?;
    Some((&record[..equals], &record[equals + 1..], &bytes[length..]))
}

/// Writes a record.
pub(crate) fn push(out: &mut Vec<u8>, key: &[u8], value: &[u8]) {
    let rest = key.len() + value.len() + 3;
    // The length counts its own digits.
    let mut length = rest + 1;
    while rest + digits(length) != length {
        length = rest + digits(length);
    }
    out.extend_from_slice(length.to_string().as_bytes());
    out.push(b' ');
    out.extend_from_slice(key);
    out.push(b'=');
    out.extend_from_slice(value);
    out.push(b'\n');
}

fn digits(number: usize) -> usize {
    number.to_string().len()
}

/// A number in decimal digits, and nothing else.
pub(crate) fn number(digits: &[u8]) -> Option<u64> {
    let plain = !digits.is_empty() && digits.iter().all(u8::is_ascii_digit);
    let text = std::str::from_utf8(digits).ok()?;
    plain.then(|| text.parse().ok())?
}

/// Seconds with a fraction: `1700000000.25`, `-1.5`.
pub(crate) fn time(text: &[u8]) -> Option<Time> {
    let (negative, text) = match text.strip_prefix(b"-") {
        Some(text) => (true, text),
        None => (false, text),
    };
    let mut halves = text.splitn(2, |b| *b == b'.');
    let seconds = i64::try_from(number(halves.next()?)?).ok()?;
    let fraction = halves.next().unwrap_or_default();
    let mut nanos = 0;
    for place in 0..9 {
        let digit = fraction.get(place).copied().unwrap_or(b'0');
        nanos = nanos * 10 + (digit as char).to_digit(10)?;
    }
    Some(match (negative, nanos) {
        (false, nanos) => Time { seconds, nanos },
        (true, 0) => Time {
            seconds: -seconds,
            nanos,
        },
        (true, nanos) => Time {
            seconds: -seconds - 1,
            nanos: 1_000_000_000 - nanos,
        },
    })
}

/// As [`time`] reads it.
pub(crate) fn time_text(time: Time) -> String {
    match (time.seconds, time.nanos) {
        (seconds, 0) => seconds.to_string(),
        (seconds @ 0.., nanos) => format!("{seconds}.{nanos:09}"),
        (-1, nanos) => format!("-0.{:09}", 1_000_000_000 - nanos),
        (seconds, nanos) => format!("{}.{:09}", seconds + 1, 1_000_000_000 - nanos),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_are_read_as_they_were_written() {
        let mut bytes = Vec::new();
        let long = vec![b'x'; 95];
        let records: [(&[u8], &[u8]); 4] = [
            (b"path", b"a\nb=c\xff"),
            (b"k", b""),
            (b"linkpath", &long),
            (b"mtime", b"1.5"),
        ];
        for (key, value) in records {
            push(&mut bytes, key, value);
        }
        let mut rest = &bytes[..];
        for (key, value) in records {
            let (read, text, after) = split(rest).expect("a record");
            assert_eq!((read, text), (key, value));
            rest = after;
        }
        assert!(rest.is_empty());
    }

    #[test]
    fn what_is_no_record_is_none() {
        for bytes in [
            &b"9 a=b\n"[..],
            b"5 a=b\n",
            b"7 a=b\n",
            b"6 ab\n\n",
            b"+6 a=b\n",
            b"99999999999999999999 a=b\n",
            b"6a=b\n",
            b"6 a=bc",
            b"1 \n",
            b"0 ",
            b"",
        ] {
            assert_eq!(split(bytes), None, "{bytes:?}");
        }
        assert!(split(b"6 a=b\n").is_some());
    }

    #[test]
    fn times_are_read_with_their_fraction() {
        let time_of = |seconds, nanos| Some(Time { seconds, nanos });
        for (text, expected) in [
            ("0", time_of(0, 0)),
            ("1700000000.25", time_of(1_700_000_000, 250_000_000)),
            ("1.0000000019", time_of(1, 1)),
            ("-1.5", time_of(-2, 500_000_000)),
            ("-0.000000001", time_of(-1, 999_999_999)),
            ("-3", time_of(-3, 0)),
            ("1.", time_of(1, 0)),
            ("", None),
            ("-", None),
            (".5", None),
            ("1.x", None),
            ("99999999999999999999", None),
        ] {
            assert_eq!(time(text.as_bytes()), expected, "{text}");
            if let Some(expected) = expected {
                assert_eq!(time(time_text(expected).as_bytes()), Some(expected));
            }
        }
    }
}
