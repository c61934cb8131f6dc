//! As much of a DNS message as a relay must understand: the header and the question. Pure.
//!
//! Source: RFC 1035 §4.1; RFC 6895 for the codes.

/// Bytes of the header.
const HEADER: usize = 12;
/// Longest name in bytes, with its final zero. Source: RFC 1035 §3.1.
const LONGEST_NAME: usize = 255;
/// Longest label. Source: RFC 1035 §2.3.4.
const LONGEST_LABEL: u8 = 63;

const RESPONSE: u8 = 0x80;
const OPCODE: u8 = 0x78;
const TRUNCATED: u8 = 0x02;
const RECURSION_DESIRED: u8 = 0x01;

/// Why a question was not answered by a resolver; told to whoever asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Failure {
    /// The question cannot be read.
    Format,
    /// No resolver answered.
    Server,
    /// It is not a question but an update or the like.
    NotImplemented,
    /// Whoever asks may not.
    Refused,
}

impl Failure {
    fn code(self) -> u8 {
        match self {
            Self::Format => 1,
            Self::Server => 2,
            Self::NotImplemented => 4,
            Self::Refused => 5,
        }
    }
}

/// What a datagram or frame from a machine is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Received<'a> {
    /// A question that may be relayed.
    Query(Query<'a>),
    /// Something that is answered with a failure.
    Refused(Failure),
    /// Nothing that may be answered at all: an answer, or no DNS.
    Ignored,
}

/// A well-formed question.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Query<'a> {
    bytes: &'a [u8],
    /// Where the question ends.
    end: usize,
}

/// What a resolver's datagram or frame is to the question that it should answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Answer {
    /// It answers it.
    Final,
    /// It answers it with "I cannot": another resolver may.
    TryAnother,
    /// It is none; it may be forged.
    Foreign,
}

/// Looks at what a machine sent.
pub(crate) fn receive(bytes: &[u8]) -> Received<'_> {
    if bytes.len() < HEADER || bytes[2] & RESPONSE != 0 {
        return Received::Ignored;
    }
    if bytes[2] & OPCODE != 0 {
        return Received::Refused(Failure::NotImplemented);
    }
    if bytes[4..6] != [0, 1] {
        return Received::Refused(Failure::Format);
    }
    match question_end(bytes) {
        Some(end) => Received::Query(Query { bytes, end }),
        None => Received::Refused(Failure::Format),
    }
}

/// Where the first question ends: a name without pointers, type and class.
fn question_end(bytes: &[u8]) -> Option<usize> {
    let mut at = HEADER;
    loop {
        let length = *bytes.get(at)?;
        at += 1 + usize::from(length);
        if length > LONGEST_LABEL || at - HEADER > LONGEST_NAME {
            return None;
        }
        if length == 0 {
            let end = at + 4;
            return (end <= bytes.len()).then_some(end);
        }
    }
}

/// An answer that says only what went wrong. `bytes` is what [`receive`] did not ignore.
pub(crate) fn failure(bytes: &[u8], failure: Failure) -> Vec<u8> {
    let mut answer = vec![0; HEADER];
    answer[0..2].copy_from_slice(&bytes[0..2]);
    answer[2] = RESPONSE | (bytes[2] & (OPCODE | RECURSION_DESIRED));
    answer[3] = failure.code();
    answer
}

impl<'a> Query<'a> {
    /// As it came.
    pub(crate) fn bytes(self) -> &'a [u8] {
        self.bytes
    }

    fn question(self) -> &'a [u8] {
        &self.bytes[HEADER..self.end]
    }

    /// An answer that repeats the question and says what went wrong.
    pub(crate) fn fail(self, reason: Failure) -> Vec<u8> {
        let mut answer = failure(self.bytes, reason);
        answer[5] = 1;
        answer.extend_from_slice(self.question());
        answer
    }

    /// An answer that says "ask again by TCP".
    pub(crate) fn truncated(self) -> Vec<u8> {
        let mut answer = self.fail(Failure::Server);
        answer[2] |= TRUNCATED;
        answer[3] = 0;
        answer
    }

    /// What a resolver's bytes are to this question.
    pub(crate) fn judge(self, answer: &[u8]) -> Answer {
        let fits = answer.len() >= HEADER
            && answer[0..2] == self.bytes[0..2]
            && answer[2] & RESPONSE != 0
            && answer[2] & OPCODE == 0;
        if !fits {
            return Answer::Foreign;
        }
        let code = answer[3] & 0x0f;
        let same = question_end(answer)
            .is_some_and(|end| answer[HEADER..end].eq_ignore_ascii_case(self.question()));
        // A server that did not understand may leave the question out.
        let left_out = answer[4..6] == [0, 0] && code != 0;
        if !same && !left_out {
            return Answer::Foreign;
        }
        // SERVFAIL, NOTIMP, REFUSED: what the host's own lookups try the next resolver for.
        // Source: resolv.conf(5), glibc's `res_send`.
        if matches!(code, 2 | 4 | 5) {
            Answer::TryAnother
        } else {
            Answer::Final
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn query(name: &[&str]) -> Vec<u8> {
        let mut bytes = vec![0xab, 0xcd, 0x01, 0, 0, 1, 0, 0, 0, 0, 0, 0];
        for label in name {
            bytes.push(u8::try_from(label.len()).expect("a label"));
            bytes.extend_from_slice(label.as_bytes());
        }
        bytes.extend_from_slice(&[0, 0, 1, 0, 1]);
        bytes
    }

    fn parsed(bytes: &[u8]) -> Query<'_> {
        match receive(bytes) {
            Received::Query(query) => query,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_question_is_read_and_answers_are_matched_to_it() {
        let bytes = query(&["example", "test"]);
        let question = parsed(&bytes);
        let mut answer = bytes.clone();
        answer[2] |= RESPONSE;
        assert_eq!(question.judge(&answer), Answer::Final);
        answer[14] = b'q';
        assert_eq!(question.judge(&answer), Answer::Foreign, "another name");
        answer[14] = bytes[14].to_ascii_uppercase();
        assert_eq!(question.judge(&answer), Answer::Final, "names have no case");
        answer[3] = 2;
        assert_eq!(question.judge(&answer), Answer::TryAnother);
        answer[0] ^= 1;
        assert_eq!(question.judge(&answer), Answer::Foreign, "another id");
        assert_eq!(question.judge(&bytes), Answer::Foreign, "not a response");
    }

    #[test]
    fn names_end_at_the_limit() {
        let longest = [
            "a".repeat(63),
            "b".repeat(63),
            "c".repeat(63),
            "d".repeat(61),
        ];
        let labels: Vec<&str> = longest.iter().map(String::as_str).collect();
        assert!(matches!(receive(&query(&labels)), Received::Query(_)));
        let over = [
            "a".repeat(63),
            "b".repeat(63),
            "c".repeat(63),
            "d".repeat(62),
        ];
        let labels: Vec<&str> = over.iter().map(String::as_str).collect();
        assert_eq!(receive(&query(&labels)), Received::Refused(Failure::Format));
    }

    #[test]
    fn what_is_no_question_is_not_relayed() {
        let good = query(&["x"]);
        assert_eq!(receive(&good[..11]), Received::Ignored);
        assert_eq!(
            receive(&good[..good.len() - 1]),
            Received::Refused(Failure::Format)
        );
        let mut answer = good.clone();
        answer[2] |= RESPONSE;
        assert_eq!(receive(&answer), Received::Ignored);
        let mut update = good.clone();
        update[2] |= 5 << 3;
        assert_eq!(receive(&update), Received::Refused(Failure::NotImplemented));
        let mut two = good.clone();
        two[5] = 2;
        assert_eq!(receive(&two), Received::Refused(Failure::Format));
        let mut pointer = good.clone();
        pointer[12] = 0xc0;
        assert_eq!(receive(&pointer), Received::Refused(Failure::Format));
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(bytes: Vec<u8>, answer: Vec<u8>) {
            match receive(&bytes) {
                Received::Query(query) => {
                    query.judge(&answer);
                    prop_assert_eq!(query.judge(&query.truncated()), Answer::Final);
                    prop_assert_eq!(query.judge(&query.fail(Failure::Server)), Answer::TryAnother);
                }
                Received::Refused(reason) => prop_assert_eq!(failure(&bytes, reason).len(), HEADER),
                Received::Ignored => {}
            }
        }
    }
}
