//! Small forms: quantities, cron expressions, names.

use reconcile_spec::Cron;
use reconcile_spec::valid::{Bytes, HostName, Millis, RoleName};

#[test]
fn quantities_show_what_they_parse() {
    for (text, value, shown) in [
        ("500ms", 500, "500ms"),
        ("1000ms", 1_000, "1s"),
        ("90m", 5_400_000, "90m"),
        ("120m", 7_200_000, "2h"),
        ("24h", 86_400_000, "24h"),
        ("1d", 86_400_000, "24h"),
        ("0s", 0, "0ms"),
    ] {
        let parsed: Millis = text.parse().unwrap();
        assert_eq!((parsed.0, parsed.to_string().as_str()), (value, shown), "{text}");
        assert_eq!(shown.parse::<Millis>().unwrap(), parsed);
    }
    for (text, value, shown) in [
        ("16MB", 16 << 20, "16MB"),
        ("16MiB", 16 << 20, "16MB"),
        ("1024kB", 1 << 20, "1MB"),
        ("1GiB", 1 << 30, "1GB"),
        ("1 TB", 1 << 40, "1TB"),
        ("1000B", 1000, "1000B"),
    ] {
        let parsed: Bytes = text.parse().unwrap();
        assert_eq!((parsed.0, parsed.to_string().as_str()), (value, shown), "{text}");
    }
    for text in [
        "",
        "s",
        "5",
        "-5s",
        "5 s s",
        "1.5h",
        "5S",
        "99999999999999999999s",
        "18446744073709551615d",
    ] {
        assert!(text.parse::<Millis>().is_err(), "{text:?} is a duration");
    }
    for text in ["5", "5K", "5mb", "MB", "16777216TB"] {
        assert!(text.parse::<Bytes>().is_err(), "{text:?} is a size");
    }
}

#[test]
fn cron_expressions_fire_when_they_say() {
    // Minute, hour, day of the month, month, weekday from Sunday.
    let fires = |text: &str, at: (u8, u8, u8, u8, u8)| {
        text.parse::<Cron>().unwrap().fires(at.0, at.1, at.2, at.3, at.4)
    };
    assert!(fires("0 2 * * *", (0, 2, 15, 6, 3)));
    assert!(!fires("0 2 * * *", (1, 2, 15, 6, 3)));
    assert!(fires("*/15 * * * *", (45, 9, 1, 1, 0)));
    assert!(fires("5/20 * * * *", (25, 9, 1, 1, 0)));
    assert!(fires("0 0 * * 7", (0, 0, 1, 1, 0)), "7 is Sunday");
    assert!(fires("0 0 * jan-mar MON,fri", (0, 0, 9, 2, 5)));
    assert!(fires("0 0 13 * 5", (0, 0, 13, 6, 1)), "either day field is enough if both restrict");
    assert!(fires("0 0 13 * 5", (0, 0, 12, 6, 5)));
    assert!(!fires("0 0 13 * *", (0, 0, 12, 6, 5)));
    for text in [
        "",
        "* * * *",
        "* * * * * *",
        "60 * * * *",
        "* 24 * * *",
        "* * 0 * *",
        "5-1 * * * *",
        "*/0 * * * *",
        "@daily",
    ] {
        assert!(text.parse::<Cron>().is_err(), "{text:?} is a cron expression");
    }
}

#[test]
fn names_are_names() {
    assert!(HostName::new("node-1").is_ok());
    for text in ["", "Node1", "node_1", "-node", "node-", "node.example", &"x".repeat(64)] {
        assert!(HostName::new(text).is_err(), "{text:?} is a host name");
    }
    assert!(RoleName::new("app_rw").is_ok());
    for text in ["", "1app", "app role", "app\"", "a'b", "ä"] {
        assert!(RoleName::new(text).is_err(), "{text:?} is a role name");
    }
    let name: HostName = serde_json::from_str("\"node1\"").unwrap();
    assert_eq!(name, "node1");
    assert!(serde_json::from_str::<HostName>("\"Node 1\"").is_err());
}

/// Nothing is known of the fields of a file that cannot be read to its end.
#[test]
fn a_broken_line_shows_no_secret() {
    for line in [
        "    pasword: canary-1 and canary-2: x",
        "    adminPassword: 'canary-1",
        "    pgpass: \"canary-1, canary-2\" x",
        "    x: { passphrase: canary-1 canary-2 ] }",
        "    apiToken: canary-1: canary-2",
        "    conninfo: host=a password=canary-1: x",
        "    url: postgres://app:canary-1@db/x: y",
        "    password: |\n      canary-1\n\tcanary-2",
        "    password: \"canary-1\n      canary-2\" x",
        "    password: \"ab\\\"canary-1\" x: y",
        "    password: 'ab''canary-1' x: y",
        "    password: abc,canary-1: x",
        "    password: #canary-1: y\n     z: canary-2: x",
        "    password: |\n      x: canary-1: y\n\tcanary-2",
        "    password: >-\n      x\n        y: canary-1: z\n\tcanary-2",
        "    password: \"a\n      x: canary-1\" y: z",
        "    x: { password: \"ab\\\"canary-1\", y: z: z ] }",
        "    x: { password: 'ab''canary-1', y: z: z ] }",
        "    x: { password: ab,canary-1: y ] }",
        "    password: { value: canary-1 canary-2 ] }",
        "    pass: canary-1: x",
        "    pwd: canary-1: x",
        "    apiKey: canary-1: x",
        "    api_key: canary-1: x",
        "    secret_access_key: canary-1: x",
        "    accessKey: canary-1: x",
        "    token: canary-1: x",
        "    credential: canary-1: x",
        "    credentials: canary-1: x",
        "    dsn: canary-1: x",
        "    url: postgres://app:ca/canary-1@db/x: y",
        "    password: {\n      value: canary-1 ]",
        "    password: { value:\n      canary-1 ]",
        "    - { name: app, password: \"canary-1\n      canary-2\" x }",
        "    passwords: canary-1: x",
    ] {
        let text = format!("apiVersion: reconcile/v1alpha1\nspec:\n  x:\n{line}\n");
        let report = reconcile_spec::load("c.yaml", &text).unwrap_err().to_string();
        assert!(report.contains("not valid YAML"), "{report}");
        assert!(!report.contains("canary"), "{report}");
    }
}

/// A file that can be read and is refused shows its lines too.
#[test]
fn a_refused_file_shows_no_secret() {
    for field in ["pass", "pwd", "apiKey", "api_key", "accessKey", "token", "credentials", "dsn"] {
        for value in [
            "canary-1",
            "'ab''canary-1'",
            "abc,canary-1",
            "|\n    x: canary-1",
            "{ value: canary-1 }",
        ] {
            let text = format!("apiVersion: reconcile/v1alpha1\nspec:\n  {field}: {value}\n");
            let report = reconcile_spec::load("c.yaml", &text).unwrap_err().to_string();
            assert!(report.contains(field) && !report.contains("canary"), "{report}");
        }
    }
}

/// What is next to a secret is still shown.
#[test]
fn what_is_no_secret_stays_readable() {
    for (line, shown) in [
        ("    x: { password: { secret: plain-1 }, y: z: z ] }", "plain-1"),
        ("    password: { secret: plain-1 }\n    name: plain-2: x", "plain-2"),
        ("    password:\n      secret: plain-1: x", "plain-1"),
        ("    - password: abc\n      name: plain-1: x", "plain-1"),
        ("    url: https://db/plain-1: y", "plain-1"),
    ] {
        let text = format!("apiVersion: reconcile/v1alpha1\nspec:\n  x:\n{line}\n");
        let report = reconcile_spec::load("c.yaml", &text).unwrap_err().to_string();
        assert!(report.contains(shown), "{report}");
    }
}
