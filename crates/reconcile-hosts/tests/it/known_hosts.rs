//! Which host keys are believed.

use reconcile_hosts::known_hosts::TrustedKeys;
use russh::keys::{Algorithm, PublicKey};

const ED25519: &str =
    "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIC5nSFHjqn2gI2zFMKHbWcM7NqAQpxCiww9OqFfXXuc+";
const OTHER: &str =
    "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAICFJe8A/XncWmRPnfGuwNIPImqwXE8w1I48J+fR+kPDB";
const ECDSA: &str = "ecdsa-sha2-nistp256 AAAAE2VjZHNhLXNoYTItbmlzdHAyNTYAAAAIbmlzdHAyNTYAAABBBB72FsJiEoVcES967FW5YJ9biBANrs/KICT25kwLuGzVwLJ83FLBqsOIvtRMV8le2JuN4JDd7l5pZIF+rEH8FkE=";
const RSA: &str = "ssh-rsa AAAAB3NzaC1yc2EAAAADAQABAAABAQCQkH+HsX6z8g4w9/EeCyJz8R7HmbM3Ug6X/axJugR3leBJTcIBQ24ZNVYlsQ8jsU/dar7hfFrCYk9vrenQkXJYngvMsF2+mGcbIuNA6S/aP9eae+zIcCZcxOEtScszbC6Y0ZPlsSeV8Lm3SHyw13dwcKUrCYaz+zp7Lwu0pZTlyTeyHS2Yp9ec5g87PBbmkdIjfA6eZMcE3UQEaXCjDcQl3xh+AVTU6eU4YcfVKqtwEiU1/WSF7SFEqWWkIwEOLxrVYup+rSzWZ8l6OofKSmlx0BK3FE9Ob+e3ZtvaGx7N2upELhata4WrQ5/6KLKDbzZIAnNanZockhrJYJc0CqQP";
/// `192.0.2.11` and `[192.0.2.12]:2222` as `ssh-keygen -H` writes them.
const HASHED: &str = "|1|siP1tfAEL/FQh+HtO4dlDCqKpIk=|VrJ4MluzDm8YISM3fLhpOr7SiOA= ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIC5nSFHjqn2gI2zFMKHbWcM7NqAQpxCiww9OqFfXXuc+
|1|BGbEh9n5VsylhgEjPZanbXFEcbg=|DV4yAW0FDTKAOLA2hX4edduLbTU= ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIC5nSFHjqn2gI2zFMKHbWcM7NqAQpxCiww9OqFfXXuc+
";

fn key(text: &str) -> PublicKey {
    PublicKey::from_openssh(text).unwrap()
}

fn in_file(lines: &str, address: &str, port: u16) -> Result<TrustedKeys, String> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("known_hosts");
    std::fs::write(&path, lines).unwrap();
    TrustedKeys::for_server(address, port, None, Some(&path))
}

#[test]
fn a_line_is_about_its_names_and_port() {
    let lines = format!("# mine\n\nnode1,192.0.2.11 {ED25519} a comment\n[node1]:2222\t{OTHER}\n");
    for (address, port, expected) in [
        ("192.0.2.11", 22, Some(ED25519)),
        ("NODE1", 22, Some(ED25519)),
        ("node1", 2222, Some(OTHER)),
        ("192.0.2.11", 2222, None),
        ("192.0.2.1", 22, None),
    ] {
        match (in_file(&lines, address, port), expected) {
            (Ok(keys), Some(expected)) => assert!(keys.check(&key(expected)).is_ok(), "{address}"),
            (Err(why), None) => assert!(why.contains("has no key for"), "{why}"),
            (found, _) => panic!("{address}:{port}: {found:?}"),
        }
    }
}

#[test]
fn hashed_names_match() {
    assert!(in_file(HASHED, "192.0.2.11", 22).unwrap().check(&key(ED25519)).is_ok());
    assert!(in_file(HASHED, "192.0.2.12", 2222).unwrap().check(&key(ED25519)).is_ok());
    assert!(in_file(HASHED, "192.0.2.12", 22).is_err());
    assert!(in_file("|1|broken ssh-ed25519 AAAA\n", "192.0.2.12", 22).is_err());
}

#[test]
fn wildcards_and_their_exceptions() {
    let lines = format!("*.example.org,!bad.example.org {ED25519}\n");
    assert!(in_file(&lines, "db.example.org", 22).is_ok());
    assert!(in_file(&lines, "bad.example.org", 22).is_err());
    assert!(in_file(&lines, "db.example.org", 2222).is_err());
}

#[test]
fn a_revoked_key_is_refused_wherever_else_it_stands() {
    let lines = format!("@revoked * {ED25519}\nnode1 {ED25519}\nnode1 {OTHER}\n");
    let keys = in_file(&lines, "node1", 22).unwrap();
    assert!(keys.check(&key(ED25519)).unwrap_err().contains("is revoked"));
    assert!(keys.check(&key(OTHER)).is_ok());

    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("known_hosts");
    std::fs::write(&path, lines).unwrap();
    let keys = TrustedKeys::for_server("node1", 22, Some(ED25519), Some(&path)).unwrap();
    assert!(keys.check(&key(ED25519)).is_err());
    // A pin is the whole truth.
    assert!(keys.check(&key(OTHER)).is_err());
}

#[test]
fn an_authority_alone_is_not_enough() {
    let lines = format!("@cert-authority * {ED25519}\n");
    assert!(in_file(&lines, "node1", 22).unwrap_err().contains("certificate authority"));
}

#[test]
fn known_algorithms_are_asked_for_first() {
    let first = |pin: &str| {
        let keys = TrustedKeys::for_server("node1", 22, Some(pin), None).unwrap();
        keys.algorithms()[0].clone()
    };
    assert_eq!(first(ED25519), Algorithm::Ed25519);
    assert!(matches!(first(ECDSA), Algorithm::Ecdsa { .. }));
    // Never with SHA-1.
    assert!(matches!(first(RSA), Algorithm::Rsa { hash: Some(_) }));
}

#[test]
fn a_pin_is_read_as_people_have_it() {
    for pin in [
        ED25519.to_owned(),
        format!("{ED25519} root@node1\n"),
        format!("192.0.2.11 {ED25519}"),
        format!("# old\n{OTHER}\n\n# new\n{ED25519}\n"),
    ] {
        let keys = TrustedKeys::for_server("node1", 22, Some(&pin), None).unwrap();
        assert!(keys.check(&key(ED25519)).is_ok(), "{pin}");
    }
    for pin in ["", "ssh-ed25519", "SHA256:abcdef", "ssh-ed25519 %%%"] {
        assert!(TrustedKeys::for_server("node1", 22, Some(pin), None).is_err(), "{pin}");
    }
}

#[test]
fn a_file_that_cannot_be_read_is_told() {
    let path = std::path::Path::new("/nonexistent/known_hosts");
    let why = TrustedKeys::for_server("node1", 22, None, Some(path)).unwrap_err();
    assert!(why.contains("/nonexistent/known_hosts cannot be read"), "{why}");
}
