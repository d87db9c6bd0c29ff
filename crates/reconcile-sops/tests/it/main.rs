//! Files that `age` and `sops` themselves have made are opened; whatever was changed in them is
//! refused (`fixtures/make.sh`).

use std::{fs, path::Path};

use reconcile_sops::{Form, Identities, Opened, SealError, Values, open};

fn fixture(name: &str) -> Vec<u8> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures").join(name);
    fs::read(path).expect("a fixture")
}

fn keys(name: &str) -> Identities {
    let text = String::from_utf8(fixture(name)).expect("UTF-8");
    Identities::parse(&text).expect("identities")
}

fn ours() -> Identities {
    keys("key-for-tests.txt")
}

fn text(opened: Result<Opened, SealError>) -> String {
    match opened.expect("opened") {
        Opened::Text(text) => text.to_string(),
        Opened::Values(_) => panic!("a SOPS file"),
    }
}

fn values(opened: Result<Opened, SealError>) -> Values {
    match opened.expect("opened") {
        Opened::Values(values) => values,
        Opened::Text(_) => panic!("an age file"),
    }
}

const PLAIN: &str = "postgres-superuser: canary-superuser-7Qx\nother: canary-other-7Qx\n";

#[test]
fn whole_files_are_opened() {
    for name in ["whole.age", "whole.asc"] {
        let bytes = fixture(name);
        assert_eq!(Form::of(&bytes), Form::Age, "{name}");
        assert_eq!(text(open(&bytes, &ours())), PLAIN, "{name}");
    }
    assert_eq!(text(open(&fixture("two-chunks.age"), &ours())), "x".repeat(65_600));
    assert_eq!(text(open(&fixture("empty.age"), &ours())), "");
    assert_eq!(text(open(&fixture("whole.age"), &keys("other-key-for-tests.txt"))), PLAIN);
}

#[test]
fn files_for_an_ssh_key_are_opened_with_it() {
    let ssh = keys("ssh-key-for-tests");
    let public = String::from_utf8(fixture("ssh-key-for-tests.pub")).expect("UTF-8");
    assert_eq!(format!("{} tests\n", ssh.recipients()), public);
    let bytes = fixture("ssh.age");
    assert_eq!(text(open(&bytes, &ssh)), PLAIN);
    for name in ["ssh-key-for-tests", "ssh-other-key-for-tests", "other-key-for-tests.txt"] {
        assert_eq!(text(open(&fixture("ssh-several.asc"), &keys(name))), PLAIN, "{name}");
    }
    let other = keys("ssh-other-key-for-tests");
    let said = open(&bytes, &other).err().expect("refused").to_string();
    assert!(said.contains("for other keys than ours: ssh-ed25519 AAAA"), "{said}");
    assert!(open(&bytes, &ours()).is_err() && open(&fixture("whole.age"), &ssh).is_err());
    for place in 0..bytes.len() {
        for bit in 0..8 {
            let mut bytes = bytes.clone();
            bytes[place] ^= 1 << bit;
            assert!(open(&bytes, &ssh).is_err(), "byte {place}, bit {bit}");
        }
    }
}

#[test]
fn ssh_keys_that_do_not_serve_are_refused_with_words() {
    let refused = |name: &str| {
        let text = String::from_utf8(fixture(name)).expect("UTF-8");
        Identities::parse(&text).expect_err(name).to_string()
    };
    let said = refused("ssh-passphrase-for-tests");
    assert!(said.contains("an SSH key with a passphrase"), "{said}");
    let said = refused("ssh-ecdsa-for-tests");
    assert!(said.contains("an SSH key that is none of Ed25519"), "{said}");
    let good = String::from_utf8(fixture("ssh-key-for-tests")).expect("UTF-8");
    let good = good.trim_end();
    for (place, letter) in good.char_indices() {
        if good[..place].contains(char::is_control) && letter.is_ascii_alphanumeric() {
            let other = if letter == 'A' { "B" } else { "A" };
            let changed = format!("{}{other}{}", &good[..place], &good[place + 1..]);
            // All but the comment and unused bits hang together; none of it may panic.
            if let Ok(read) = Identities::parse(&changed) {
                assert_eq!(read.recipients(), keys("ssh-key-for-tests").recipients());
            }
        }
        assert!(Identities::parse(&good[..place]).is_err(), "cut at {place}");
    }
}

#[test]
fn another_key_is_told_by_its_public_half() {
    let other = keys("other-key-for-tests.txt");
    let error = open(&fixture("whole.asc"), &other).err().expect("refused");
    let said = error.to_string();
    assert!(
        said.contains("for other keys than ours") && said.contains(&other.recipients()),
        "{said}"
    );
    let error = open(&fixture("for-other.yaml"), &ours()).err().expect("refused");
    let said = error.to_string();
    assert!(said.contains(&other.recipients()) && said.contains(&ours().recipients()), "{said}");
    assert!(!said.contains("AGE-SECRET"), "{said}");
}

#[test]
fn each_changed_bit_and_each_shorter_file_is_refused() {
    let identities = ours();
    let whole = fixture("whole.age");
    for place in 0..whole.len() {
        for bit in 0..8 {
            let mut bytes = whole.clone();
            bytes[place] ^= 1 << bit;
            assert!(open(&bytes, &identities).is_err(), "byte {place}, bit {bit}");
        }
        assert!(open(&whole[..place], &identities).is_err(), "cut at {place}");
    }
    let mut longer = whole.clone();
    longer.push(0);
    assert!(open(&longer, &identities).is_err());
    // A chunk cut off at its border is a file of its own, but for the mark of the last one.
    let two = fixture("two-chunks.age");
    let header = two.windows(4).position(|w| w == b"\n---").expect("a MAC") + 1;
    let payload = header + two[header..].iter().position(|b| *b == b'\n').expect("an end") + 1;
    assert!(open(&two[..payload + 16 + 65_536 + 16], &identities).is_err());
}

#[test]
fn a_passphrase_is_not_asked_for() {
    let file = b"age-encryption.org/v1\n-> scrypt QUFBQUFBQUFBQUFBQUFBQQ 18\nAAAA\n--- AAAA\n";
    assert_eq!(open(file, &ours()).err(), Some(SealError::Passphrase));
}

#[test]
fn what_is_no_identity_is_told_by_its_line() {
    let parse = |text: &str| Identities::parse(text).expect_err("refused");
    assert_eq!(parse("# nothing\n\n"), SealError::NoIdentity);
    assert_eq!(parse("# one\nAGE-SECRET-KEY-1QQQQ\n"), SealError::BadIdentity { line: 2 });
    let ssh = parse("-----BEGIN OPENSSH PRIVATE KEY-----\n");
    assert!(ssh.to_string().contains("a damaged SSH key"), "{ssh}");
    let rsa = parse("-----BEGIN RSA PRIVATE KEY-----\n");
    assert!(rsa.to_string().contains("a key of another program"), "{rsa}");
    let encrypted = parse("age-encryption.org/v1\n");
    assert!(encrypted.to_string().contains("an encrypted identity file"), "{encrypted}");
    assert!(!format!("{:?}", ours()).contains("SECRET"));
}

#[test]
fn sops_files_are_opened() {
    for name in ["flat.yaml", "two-recipients.yaml"] {
        let bytes = fixture(name);
        assert_eq!(Form::of(&bytes), Form::Sops, "{name}");
        let values = values(open(&bytes, &ours()));
        let texts: Vec<_> = values.texts.iter().map(|(n, t)| format!("{n}: {}\n", **t)).collect();
        assert_eq!(
            texts.concat(),
            "other: canary-other-7Qx\npostgres-superuser: canary-superuser-7Qx\n"
        );
        assert!(values.unfit.is_empty());
    }
    for name in ["nested.yaml", "mac-only-encrypted.yaml"] {
        let values = values(open(&fixture(name), &ours()));
        let names: Vec<_> = values.texts.keys().map(String::as_str).collect();
        assert_eq!(names, ["accents", "lines", "other", "postgres-superuser"], "{name}");
        assert_eq!(values.texts["accents"].as_str(), "canary-äöü-7Qx");
        assert_eq!(values.texts["lines"].as_str(), "canary-first-7Qx\nsecond\n");
        assert_eq!(values.unfit["number"], "is no text; write it in quotes");
        assert_eq!(values.unfit["words_unencrypted"], "is in clear in an encrypted file");
    }
}

#[test]
fn sops_files_for_an_ssh_key_are_opened_with_it() {
    for (name, key) in [
        ("ssh.sops.yaml", "ssh-key-for-tests"),
        ("ssh-or-age.sops.yaml", "ssh-other-key-for-tests"),
        ("ssh-or-age.sops.yaml", "key-for-tests.txt"),
    ] {
        let values = values(open(&fixture(name), &keys(key)));
        assert_eq!(values.texts["other"].as_str(), "canary-other-7Qx", "{name} with {key}");
    }
    let ssh = keys("ssh-key-for-tests");
    let error = open(&fixture("ssh-or-age.sops.yaml"), &ssh).err().expect("refused");
    let said = error.to_string();
    assert!(said.contains(ours().recipients().as_str()) && said.contains("ssh-ed25519"), "{said}");
}

/// A SOPS file, changed, is refused.
fn changed(name: &str, change: impl FnOnce(&str) -> String) -> SealError {
    let good = String::from_utf8(fixture(name)).expect("UTF-8");
    let bad = change(&good);
    assert_ne!(good, bad, "nothing was changed");
    let error = open(bad.as_bytes(), &ours()).err().expect("refused");
    assert!(!error.to_string().contains("canary"), "{error}");
    error
}

fn line<'a>(text: &'a str, start: &str) -> &'a str {
    text.lines().find(|line| line.starts_with(start)).expect("a line")
}

#[test]
fn a_sops_file_is_taken_whole_or_not_at_all() {
    let without = |text: &str| text.replace(&format!("{}\n", line(text, "other:")), "");
    assert_eq!(changed("flat.yaml", without), SealError::Mac);
    let swapped = |text: &str| {
        let value = |name: &str| line(text, name).split_once(' ').expect("a value").1;
        let (a, b) = (value("other:"), value("postgres-superuser:"));
        text.replace(a, "SWAP").replace(b, a).replace("SWAP", b)
    };
    assert_eq!(changed("flat.yaml", swapped), SealError::Value("postgres-superuser".to_owned()));
    let reordered = |text: &str| {
        let other = format!("{}\n", line(text, "other:"));
        format!("{other}{}", text.replace(&other, ""))
    };
    assert_eq!(changed("flat.yaml", reordered), SealError::Mac);
    let added = |text: &str| format!("pgbouncer-admin: known-to-an-attacker\n{text}");
    assert_eq!(changed("flat.yaml", added), SealError::Mac);
    let cleared = |text: &str| text.replace(line(text, "other:"), "other: known-to-an-attacker");
    assert_eq!(changed("flat.yaml", cleared), SealError::Mac);
    let later = |text: &str| {
        let said = line(text, "    lastmodified:");
        text.replace(said, "    lastmodified: \"2031-01-01T00:00:00Z\"")
    };
    assert_eq!(changed("flat.yaml", later), SealError::Mac);
    let clear =
        |text: &str| text.replace("words_unencrypted: in clear", "words_unencrypted: other");
    assert_eq!(changed("nested.yaml", clear), SealError::Mac);
    let flag = |text: &str| text.replace("_unencrypted: false", "_unencrypted: true");
    assert_eq!(changed("nested.yaml", flag), SealError::Mac);
    let pretended =
        |text: &str| text.replace("mac_only_encrypted: true", "mac_only_encrypted: false");
    assert_eq!(changed("mac-only-encrypted.yaml", pretended), SealError::Mac);
    let no_mac = |text: &str| text.replace(line(text, "    mac:"), "");
    assert!(matches!(changed("flat.yaml", no_mac), SealError::Sops(_)));
}

#[test]
fn each_changed_letter_of_a_value_is_refused() {
    let good = String::from_utf8(fixture("flat.yaml")).expect("UTF-8");
    let value = line(&good, "other:");
    let (start, end) =
        (good.find(value).expect("there"), good.find(value).expect("there") + value.len());
    for place in start..end {
        let mut bytes = good.clone().into_bytes();
        bytes[place] = if bytes[place] == b'A' { b'B' } else { b'A' };
        assert!(open(&bytes, &ours()).is_err(), "{}", String::from_utf8_lossy(&bytes[start..end]));
    }
}

#[test]
fn what_sops_did_not_write_is_refused_with_words() {
    let sops = |text: &str| open(text.as_bytes(), &ours()).err().expect("refused").to_string();
    assert!(sops("a: [\nsops:\n").contains("is not YAML"), "{}", sops("a: [\nsops:\n"));
    assert!(sops("a: b\nsops:\n  x: y\n").contains("lacks"));
    let pgp = "a: b\nsops:\n  pgp: []\n  lastmodified: x\n  mac: y\n";
    assert!(sops(pgp).contains("no age recipient"));
    assert_eq!(sops("a: canary\n"), "it is not encrypted");
    let groups = "a: b\nsops:\n  key_groups: [{}]\n  lastmodified: x\n  mac: y\n";
    assert!(sops(groups).contains("key groups"));
}
