//! Rules of pg_hba.conf's lines.

use std::net::IpAddr;

use super::{Rules, text};
use crate::fault::Fault;
use crate::hints;
use crate::v1alpha1;
use crate::valid::{HbaMethod, HbaRule, HbaType};

const METHODS: &[(&str, HbaMethod)] = &[
    ("scram-sha-256", HbaMethod::ScramSha256),
    ("cert", HbaMethod::Cert),
    ("peer", HbaMethod::Peer),
    ("gss", HbaMethod::Gss),
    ("ldap", HbaMethod::Ldap),
    ("reject", HbaMethod::Reject),
];

pub(super) fn rules_of(rules: &mut Rules<'_>, own: &[v1alpha1::HbaRule]) -> Vec<HbaRule> {
    own.iter().enumerate().filter_map(|(index, rule)| line(rules, index, rule)).collect()
}

fn line(rules: &mut Rules<'_>, index: usize, rule: &v1alpha1::HbaRule) -> Option<HbaRule> {
    let path = format!("spec.postgresql.hba[{index}]");
    let v1alpha1::HbaRule { kind, database, user, address, method, options, deliberate } = rule;
    for (field, value) in [("database", database), ("user", user)] {
        if value.contains(|c: char| c.is_whitespace() || matches!(c, '#' | '"')) {
            let message = format!("`{path}.{field}` has a space, '#' or '\"' in it");
            rules.push(
                Fault::error(format!("{path}.{field}"), message)
                    .help("several names are joined by commas without spaces"),
            );
        }
    }
    // A field that is wrong keeps none of the others from being looked at.
    let kind = kind.map(|kind| match kind {
        v1alpha1::HbaType::Local => HbaType::Local,
        v1alpha1::HbaType::Host => HbaType::Host,
        v1alpha1::HbaType::Hostssl => HbaType::Hostssl,
        v1alpha1::HbaType::Hostnossl => HbaType::Hostnossl,
    });
    let address_path = format!("{path}.address");
    match (kind, address) {
        (Some(HbaType::Local), Some(_)) => {
            rules.push(
                Fault::error(
                    address_path,
                    "a `local` line has no address: it is about the Unix socket",
                )
                .help("drop the address, or write `type: host`"),
            );
        }
        (Some(HbaType::Local) | None, None) => {}
        (Some(kind), None) => {
            rules.push(
                Fault::error(address_path, format!("a `{}` line needs an address", kind.as_str()))
                    .help("a network such as `10.0.0.0/8`, or `samenet`, `samehost`, `all`"),
            );
        }
        (_, Some(address)) => match address_form(address) {
            Err(message) => rules.push(Fault::error(address_path, message)),
            Ok(Address::Name) => rules.push(looked_up(address_path, address)),
            Ok(Address::Network) => {}
        },
    }
    let method = method_of(rules, &format!("{path}.method"), method.as_deref(), kind);
    let mut plain = std::collections::BTreeMap::new();
    for (name, value) in options {
        if !name.bytes().all(|b| b.is_ascii_lowercase() || b == b'_')
            || value.0.contains(char::is_whitespace)
        {
            let message = format!("{name:?} is no option of a line in pg_hba.conf");
            rules.push(Fault::error(format!("{path}.options.{name}"), message).at_key());
        }
        plain.insert(name.clone(), value.0.clone());
    }
    let (kind, method) = (kind?, method?);
    Some(HbaRule {
        kind,
        database: database.clone(),
        user: user.clone(),
        address: address.clone(),
        method,
        options: plain,
        deliberate: deliberate.unwrap_or(false),
    })
}

/// What the address of a line is.
enum Address {
    /// A network, or a word for one.
    Network,
    /// A host name, or the end of one.
    Name,
}

/// Nothing is looked up here: what a name means to the servers only they know.
fn looked_up(path: String, name: &str) -> Fault {
    let message = format!(
        "`{name}` is a name: PostgreSQL looks up the name of each client that connects, and the addresses of that name"
    );
    Fault::warning(path, message).help(
        "a client that the servers cannot look up both ways does not fit the line; a network such as `10.0.0.0/8` needs no name service",
    )
}

fn address_form(address: &str) -> Result<Address, String> {
    if matches!(address, "all" | "samehost" | "samenet") {
        return Ok(Address::Network);
    }
    if let Ok(single) = address.parse::<IpAddr>() {
        let bits = if single.is_ipv4() { 32 } else { 128 };
        return Err(format!(
            "`{address}` has no prefix length; for this one address write `{address}/{bits}`"
        ));
    }
    if address.contains('/') {
        return text::network(address).map(|_| Address::Network);
    }
    let name = address.strip_prefix('.').unwrap_or(address);
    let fits = !name.is_empty()
        && name.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.'))
        && name.bytes().any(|b| b.is_ascii_alphabetic());
    if fits {
        Ok(Address::Name)
    } else {
        Err(format!("{address:?} is neither a network nor a host name"))
    }
}

fn method_of(
    rules: &mut Rules<'_>,
    path: &str,
    method: Option<&str>,
    kind: Option<HbaType>,
) -> Option<HbaMethod> {
    let word = method.unwrap_or("scram-sha-256");
    let Some((_, method)) = METHODS.iter().find(|(name, _)| *name == word) else {
        let names: Vec<&str> = METHODS.iter().map(|(name, _)| *name).collect();
        let fault = Fault::error(path, format!("the method `{}` is refused", hints::clip(word)));
        rules.push(match word {
            "trust" => fault.help(
                "it lets anyone in as any role; write `scram-sha-256`, or `peer` for `local`",
            ),
            "md5" => fault.help(
                "its hashes can be replayed, and passwords here are SCRAM; write `scram-sha-256`",
            ),
            "password" => fault.help("it sends passwords in clear text; write `scram-sha-256`"),
            "ident" => fault.help("it believes what the client's host says; write `scram-sha-256`"),
            _ => match hints::nearest(word, &names) {
                Some(meant) => {
                    fault.help(format!("did you mean `{meant}`? One of: {}", hints::listed(&names)))
                }
                None => fault.help(format!("one of: {}", hints::listed(&names))),
            },
        });
        return None;
    };
    let mismatch = match (method, kind) {
        (HbaMethod::Cert, Some(HbaType::Local | HbaType::Host | HbaType::Hostnossl)) => {
            Some("`cert` needs `type: hostssl`")
        }
        (HbaMethod::Peer, Some(HbaType::Host | HbaType::Hostssl | HbaType::Hostnossl)) => {
            Some("`peer` needs `type: local`")
        }
        (HbaMethod::Gss, Some(HbaType::Local)) => Some("`gss` needs a TCP connection"),
        _ => None,
    };
    if let Some(message) = mismatch {
        rules.push(Fault::error(path, message).help("PostgreSQL would refuse to load the file"));
    }
    Some(*method)
}
