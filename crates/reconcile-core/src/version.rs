//! Debian's rule by which one version of a package is older than another.
//!
//! `[epoch:]upstream[-revision]`: epochs as numbers, then upstream versions, then revisions. Those two
//! are read in turns of text and number; in text `~` comes before the end, the end before letters, and
//! letters before all else. So `1.0~rc1` < `1.0` < `1.0+b1`.

use std::{cmp::Ordering, str::FromStr};

/// How `a` stands to `b`: `Less` where it is the older one. As `dpkg --compare-versions` has it.
pub fn compare(a: &str, b: &str) -> Ordering {
    let (a, b) = (parts(a), parts(b));
    number(a.0, b.0).then_with(|| text(a.1, b.1)).then_with(|| text(a.2, b.2))
}

/// Epoch, upstream version, revision.
fn parts(version: &str) -> (&str, &str, &str) {
    let (epoch, rest) = version.split_once(':').unwrap_or(("", version));
    let (upstream, revision) = rest.rsplit_once('-').unwrap_or((rest, ""));
    (epoch, upstream, revision)
}

/// Digits as a number of any length.
fn number(a: &str, b: &str) -> Ordering {
    let (a, b) = (a.trim_start_matches('0'), b.trim_start_matches('0'));
    a.len().cmp(&b.len()).then_with(|| a.cmp(b))
}

fn rank(byte: Option<u8>) -> u16 {
    match byte {
        Some(b'~') => 0,
        None => 1,
        Some(letter) if letter.is_ascii_alphabetic() => 2 + u16::from(letter),
        Some(other) => 0x100 + u16::from(other),
    }
}

fn text(mut a: &str, mut b: &str) -> Ordering {
    let split = |text: &'_ str, digits: bool| {
        text.bytes().position(|b| b.is_ascii_digit() != digits).unwrap_or(text.len())
    };
    while !(a.is_empty() && b.is_empty()) {
        let ((left, rest_a), (right, rest_b)) = (at(a, split(a, false)), at(b, split(b, false)));
        for index in 0..left.len().max(right.len()) {
            let byte = |text: &str| rank(text.as_bytes().get(index).copied());
            let order = byte(left).cmp(&byte(right));
            if order.is_ne() {
                return order;
            }
        }
        let ((left, next_a), (right, next_b)) =
            (at(rest_a, split(rest_a, true)), at(rest_b, split(rest_b, true)));
        let order = number(left, right);
        if order.is_ne() {
            return order;
        }
        (a, b) = (next_a, next_b);
    }
    Ordering::Equal
}

/// Versions are ASCII; anything else is taken whole.
fn at(text: &str, index: usize) -> (&str, &str) {
    text.split_at_checked(index).unwrap_or((text, ""))
}

/// The first numbers of an upstream version, such as (3, 4) of `1:3.4.23+dfsg-4`; None where it does
/// not begin so.
pub fn major_minor(version: &str) -> Option<(u32, u32)> {
    let (_, upstream, _) = parts(version);
    let mut numbers = upstream.split(|c: char| !c.is_ascii_digit()).map(u32::from_str);
    Some((numbers.next()?.ok()?, numbers.next()?.ok()?))
}

#[cfg(test)]
mod tests {
    use std::{cmp::Ordering, process::Command};

    use super::{compare, major_minor};

    /// Each older than the next, as Debian's own policy and archive have them.
    const RISING: [&str; 20] = [
        "0~~",
        "0~~a",
        "0~",
        "0",
        "0a",
        "0+",
        "1.0~beta1~svn1245-1",
        "1.0~beta1-1",
        "1.0-1",
        "1.0-1+b1",
        "1.0-1+deb12u1",
        "1.0-1.1",
        "1.0+dfsg-1",
        "1.9-2",
        "1.10-1",
        "3.4.23+dfsg-4+b5",
        "3.4.23+dfsg-4+b5+reconcile1",
        "15.9-0+deb12u1",
        "15.14-0+deb12u1",
        "1:0.1",
    ];

    #[test]
    fn the_order_is_debians() {
        for (i, a) in RISING.iter().enumerate() {
            for (j, b) in RISING.iter().enumerate() {
                assert_eq!(compare(a, b), i.cmp(&j), "{a} and {b}");
            }
        }
        assert_eq!(compare("1.0", "0:1.0-0"), Ordering::Equal);
        assert_eq!(compare("1.01", "1.1"), Ordering::Equal);
    }

    /// Where dpkg itself is at hand, it has the same opinion.
    #[test]
    fn dpkg_agrees() {
        if Command::new("dpkg").arg("--version").output().is_err() {
            return;
        }
        let pieces = ["1", "09", "10", "a", "b1", "~", "+", ".", ".0", "-", "-0", "~rc"];
        let mut versions: Vec<String> = RISING.iter().map(|v| (*v).to_owned()).collect();
        for (i, a) in pieces.iter().enumerate() {
            for b in pieces.iter().skip(i % 3).step_by(3) {
                versions.push(format!("2{a}{b}"));
                versions.push(format!("2{b}x{a}-1"));
            }
        }
        versions.retain(|version| !version.ends_with('-'));
        for pair in versions.iter().zip(versions.iter().skip(5)) {
            let word = match compare(pair.0, pair.1) {
                Ordering::Less => "lt",
                Ordering::Equal => "eq",
                Ordering::Greater => "gt",
            };
            let mut dpkg = Command::new("dpkg");
            let status = dpkg.args(["--compare-versions", pair.0, word, pair.1]).status();
            assert!(status.expect("dpkg runs").success(), "{pair:?} is {word}");
        }
    }

    #[test]
    fn the_first_numbers() {
        assert_eq!(major_minor("3.4.23+dfsg-4+b5"), Some((3, 4)));
        assert_eq!(major_minor("1:15.14-0"), Some((15, 14)));
        assert_eq!(major_minor("snapshot"), None);
    }
}
