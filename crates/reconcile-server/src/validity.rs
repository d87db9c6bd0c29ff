//! From when until when a certificate is valid: the only part of X.509 that is read here.
//!
//! A certificate is a sequence of sequences (DER): `{ { [version] serial algorithm issuer
//! { notBefore notAfter } … } … }`. Lengths are definite; whatever else is in it is passed over.

use std::ops::Range;

const SEQUENCE: u8 = 0x30;
const VERSION: u8 = 0xa0;
const UTC_TIME: u8 = 0x17;
const GENERALIZED_TIME: u8 = 0x18;

/// Seconds since 1970 of `notBefore` and `notAfter`; None where it is no certificate.
pub(crate) fn validity(certificate: &[u8]) -> Option<Range<i64>> {
    let (content, _) = expect(certificate, SEQUENCE)?;
    let (mut content, _) = expect(content, SEQUENCE)?;
    if let Some((_, rest)) = expect(content, VERSION) {
        content = rest;
    }
    // Serial number, algorithm, issuer.
    for _ in 0..3 {
        (_, _, content) = next(content)?;
    }
    let (validity, _) = expect(content, SEQUENCE)?;
    let (tag, from, rest) = next(validity)?;
    let from = seconds(tag, from)?;
    let (tag, until, _) = next(rest)?;
    Some(from..seconds(tag, until)?)
}

/// The first element: its tag, its content, and what follows it.
fn next(bytes: &[u8]) -> Option<(u8, &[u8], &[u8])> {
    let (&[tag, first], mut rest) = bytes.split_first_chunk::<2>()?;
    let mut length = usize::from(first);
    if first >= 0x80 {
        let count = usize::from(first & 0x7f);
        if !(1..=4).contains(&count) {
            return None;
        }
        let (digits, after) = rest.split_at_checked(count)?;
        length = digits.iter().fold(0, |length, digit| length << 8 | usize::from(*digit));
        rest = after;
    }
    let (content, rest) = rest.split_at_checked(length)?;
    Some((tag, content, rest))
}

fn expect(bytes: &[u8], wanted: u8) -> Option<(&[u8], &[u8])> {
    let (tag, content, rest) = next(bytes)?;
    (tag == wanted).then_some((content, rest))
}

/// `YYMMDDHHMMSSZ`, or with the century before it (RFC 5280, 4.1.2.5).
fn seconds(tag: u8, text: &[u8]) -> Option<i64> {
    let text = std::str::from_utf8(text).ok()?.strip_suffix('Z')?;
    let digits = match tag {
        UTC_TIME if text.len() == 12 => {
            let century = if text < "50" { "20" } else { "19" };
            format!("{century}{text}")
        }
        GENERALIZED_TIME if text.len() == 14 => text.to_owned(),
        _ => return None,
    };
    let number = |range: Range<usize>| digits.get(range)?.parse::<i64>().ok();
    let (year, month, day) = (number(0..4)?, number(4..6)?, number(6..8)?);
    let (hour, minute, second) = (number(8..10)?, number(10..12)?, number(12..14)?);
    if !(1..=12).contains(&month) || !(1..=31).contains(&day) {
        return None;
    }
    // Years that begin in March: the leap day is then the last day of its year.
    let shifted = (month + 9) % 12;
    let year = if month <= 2 { year - 1 } else { year };
    let day_of_year = (153 * shifted + 2) / 5 + day - 1;
    let days = year * 365 + year / 4 - year / 100 + year / 400 + day_of_year - 719_468;
    Some(((days * 24 + hour) * 60 + minute) * 60 + second)
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use std::time::{Duration, UNIX_EPOCH};

    use super::*;
    use crate::clock;

    fn made(from: (i32, u8, u8), until: (i32, u8, u8)) -> Vec<u8> {
        let mut parameters = rcgen::CertificateParams::new(["reconcile.test".to_owned()]).unwrap();
        parameters.not_before = rcgen::date_time_ymd(from.0, from.1, from.2);
        parameters.not_after = rcgen::date_time_ymd(until.0, until.1, until.2);
        let key = rcgen::KeyPair::generate().unwrap();
        parameters.self_signed(&key).unwrap().der().to_vec()
    }

    #[test]
    fn times_of_both_kinds_are_read() {
        for (from, until) in [
            ((1999, 12, 31), (2000, 2, 29)),
            ((2026, 1, 1), (2049, 12, 31)),
            ((2024, 2, 29), (2050, 1, 1)),
            ((2026, 11, 22), (2126, 3, 1)),
        ] {
            let valid = validity(&made(from, until)).unwrap();
            for (seconds, (year, month, day)) in [(valid.start, from), (valid.end, until)] {
                let at = UNIX_EPOCH + Duration::from_secs(u64::try_from(seconds).unwrap());
                let told = clock::rfc3339(at);
                assert_eq!(told, format!("{year:04}-{month:02}-{day:02}T00:00:00.000Z"));
            }
        }
    }

    #[test]
    fn what_is_cut_off_or_none_is_told_as_such() {
        let whole = made((2026, 1, 1), (2027, 1, 1));
        assert!(validity(&whole).is_some());
        let enough = (0..whole.len()).find(|length| validity(&whole[..*length]).is_some());
        assert_eq!(enough, None);
        assert_eq!(validity(b"no certificate"), None);
        assert_eq!(validity(&[0x30, 0x84, 0xff, 0xff, 0xff, 0xff]), None);
        assert_eq!(validity(&[0x30, 0x80, 0, 0]), None);
    }
}
