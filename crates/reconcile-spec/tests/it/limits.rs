//! Hostile and oversized input: refused, quickly, without a panic.

use std::fmt::Write as _;
use std::time::{Duration, Instant};

use reconcile_spec::{Faults, load};

const HEAD: &str =
    "apiVersion: reconcile/v1alpha1\nkind: PostgresCluster\nmetadata: { name: main }\nspec:\n";

/// Loads within a time that no sane input needs, even unoptimised on a busy machine.
fn refused_quickly(text: &str) -> Faults {
    let start = Instant::now();
    let faults = load("hostile.yaml", text).expect_err("hostile input was accepted");
    assert!(start.elapsed() < Duration::from_secs(20), "took {:?}", start.elapsed());
    assert!(faults.to_string().len() < 4_000_000, "the report is larger than its file");
    faults
}

#[test]
fn ten_megabytes_are_refused_unread() {
    let faults = refused_quickly(&"# padding\n".repeat(1 << 20));
    assert!(faults.to_string().contains("at most 1048576 are read"), "{faults}");
}

#[test]
fn an_alias_bomb_does_not_go_off() {
    let mut text = format!("{HEAD}  a0: &a0 [lol, lol, lol, lol, lol, lol, lol, lol, lol]\n");
    for level in 1..10 {
        let before = level - 1;
        let row = vec![format!("*a{before}"); 9].join(", ");
        writeln!(text, "  a{level}: &a{level} [{row}]").unwrap();
    }
    let faults = refused_quickly(&text);
    assert!(faults.to_string().contains("alias"), "{faults}");
}

#[test]
fn deep_nesting_does_not_exhaust_the_stack() {
    for (open, close) in [("[", "]"), ("{a: ", "}")] {
        let text = format!("{HEAD}  hosts: {}{}\n", open.repeat(100_000), close.repeat(100_000));
        refused_quickly(&text);
    }
    let mut text = String::new();
    for depth in 0..1_000 {
        writeln!(text, "{}a:", " ".repeat(depth)).unwrap();
    }
    refused_quickly(&text);
}

#[test]
fn many_documents_many_keys_many_faults() {
    refused_quickly(&"---\na: 1\n".repeat(100_000));
    let mut text = HEAD.to_owned();
    for key in 0..5_000 {
        writeln!(text, "  unknown{key}: 1").unwrap();
    }
    refused_quickly(&text);
    let mut text = format!("{HEAD}  hosts:\n");
    for host in 0..3_000 {
        writeln!(text, "  - {{ name: h{host}, address: 10.0.{}.{} }}", host / 250, host % 250 + 1)
            .unwrap();
    }
    refused_quickly(&text);
}

#[test]
fn a_line_of_a_megabyte_is_not_repeated_in_the_report() {
    let text =
        format!("{HEAD}  hosts: [{{ name: \"{}\", address: 1.2.3.4 }}]\n", "x".repeat(1_000_000));
    let faults = refused_quickly(&text);
    assert!(faults.to_string().len() < 20_000, "{} bytes", faults.to_string().len());
}

#[test]
fn every_prefix_of_a_file_is_handled() {
    let text = include_str!("../../../../examples/full.yaml");
    for (end, _) in text.char_indices().step_by(7) {
        // Whether it is accepted does not matter; that it does not panic does.
        if let Err(faults) = load("prefix.yaml", &text[..end]) {
            assert!(faults.count() > 0);
        }
    }
}

#[test]
fn every_line_may_be_mangled() {
    let text = include_str!("../../../../examples/full.yaml");
    let lines: Vec<&str> = text.lines().collect();
    for index in 0..lines.len() {
        for mangled in
            ["", "\t", "- x", "?", "x: [", "x: *x", "&a", "!!int x", "'", "\u{0}", "x: \u{1b}[31m"]
        {
            let mut copy = lines.clone();
            copy[index] = mangled;
            let copy = copy.join("\n");
            if let Err(faults) = load("mangled.yaml", &copy) {
                let text = faults.to_string();
                assert!(
                    !text.contains('\u{1b}'),
                    "control characters reach the terminal: {text:?}"
                );
                assert_eq!(load("mangled.yaml", &copy).unwrap_err().to_string(), text);
            }
        }
    }
}
