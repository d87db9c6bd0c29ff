//! What PostgreSQL has: encodings of a server, and the extensions of Debian's package.

use crate::{gucs::VERSION, hints};

/// Files `*.control` of Debian 12's package postgresql-15 (15.20).
const EXTENSIONS: [&str; 47] = [
    "adminpack",
    "amcheck",
    "autoinc",
    "bloom",
    "btree_gin",
    "btree_gist",
    "citext",
    "cube",
    "dblink",
    "dict_int",
    "dict_xsyn",
    "earthdistance",
    "file_fdw",
    "fuzzystrmatch",
    "hstore",
    "insert_username",
    "intagg",
    "intarray",
    "isn",
    "lo",
    "ltree",
    "moddatetime",
    "old_snapshot",
    "pageinspect",
    "pg_buffercache",
    "pg_freespacemap",
    "pg_prewarm",
    "pg_stat_statements",
    "pg_surgery",
    "pg_trgm",
    "pg_visibility",
    "pg_walinspect",
    "pgcrypto",
    "pgrowlocks",
    "pgstattuple",
    "plpgsql",
    "postgres_fdw",
    "refint",
    "seg",
    "sslinfo",
    "tablefunc",
    "tcn",
    "tsm_system_rows",
    "tsm_system_time",
    "unaccent",
    "uuid-ossp",
    "xml2",
];

/// Encodings that a server can store, by PostgreSQL's own names; and below, others for them.
const ENCODINGS: [&str; 35] = [
    "SQL_ASCII",
    "EUC_JP",
    "EUC_CN",
    "EUC_KR",
    "EUC_TW",
    "EUC_JIS_2004",
    "UTF8",
    "MULE_INTERNAL",
    "LATIN1",
    "LATIN2",
    "LATIN3",
    "LATIN4",
    "LATIN5",
    "LATIN6",
    "LATIN7",
    "LATIN8",
    "LATIN9",
    "LATIN10",
    "WIN1250",
    "WIN1251",
    "WIN1252",
    "WIN1253",
    "WIN1254",
    "WIN1255",
    "WIN1256",
    "WIN1257",
    "WIN1258",
    "WIN866",
    "WIN874",
    "KOI8R",
    "KOI8U",
    "ISO_8859_5",
    "ISO_8859_6",
    "ISO_8859_7",
    "ISO_8859_8",
];
const OTHER_NAMES: [(&str, &str); 22] = [
    ("unicode", "UTF8"),
    ("alt", "WIN866"),
    ("win", "WIN1251"),
    ("koi8", "KOI8R"),
    ("abc", "WIN1258"),
    ("tcvn", "WIN1258"),
    ("tcvn5712", "WIN1258"),
    ("vscii", "WIN1258"),
    ("iso88591", "LATIN1"),
    ("iso88592", "LATIN2"),
    ("iso88593", "LATIN3"),
    ("iso88594", "LATIN4"),
    ("iso88599", "LATIN5"),
    ("iso885910", "LATIN6"),
    ("iso885913", "LATIN7"),
    ("iso885914", "LATIN8"),
    ("iso885915", "LATIN9"),
    ("iso885916", "LATIN10"),
    ("windows1250", "WIN1250"),
    ("windows1251", "WIN1251"),
    ("windows1252", "WIN1252"),
    ("windows1256", "WIN1256"),
];
/// Encodings of clients only.
const CLIENTS: [&str; 7] = ["BIG5", "GB18030", "GBK", "JOHAB", "SHIFT_JIS_2004", "SJIS", "UHC"];

/// As PostgreSQL compares names of encodings: letters and digits, in lower case.
fn plain(name: &str) -> String {
    name.chars().filter(char::is_ascii_alphanumeric).map(|c| c.to_ascii_lowercase()).collect()
}

/// PostgreSQL's own name of a server's encoding.
fn encoding(name: &str) -> Option<&'static str> {
    let name = plain(name);
    let own = ENCODINGS.iter().copied().find(|own| plain(own) == name);
    let other = || OTHER_NAMES.iter().find(|(other, _)| *other == name).map(|(_, own)| *own);
    let windows = || {
        let own = format!("win{}", name.strip_prefix("windows")?);
        ENCODINGS.iter().copied().find(|known| plain(known) == own)
    };
    own.or_else(other).or_else(windows)
}

/// What is wrong with an encoding, by itself or with a locale, and what helps.
pub(crate) fn wrong_encoding(name: &str, locale: Option<&str>) -> Option<(String, String)> {
    let Some(own) = encoding(name) else {
        let help = if CLIENTS.iter().any(|client| plain(client) == plain(name)) {
            "only clients can speak it; PostgreSQL converts from UTF8 for them".to_owned()
        } else {
            hints::nearest(name, &ENCODINGS).map_or_else(
                || "such as UTF8".to_owned(),
                |meant| format!("did you mean `{meant}`?"),
            )
        };
        return Some((format!("PostgreSQL has no encoding `{name}` for databases"), help));
    };
    let (_, charset) = locale?.rsplit_once('.')?;
    // SQL_ASCII goes with every locale for superusers, and is a mistake with any but C.
    let charset = encoding(charset.split('@').next()?)?;
    (charset != own).then(|| {
        let locale = locale.unwrap_or_default();
        (
            format!(
                "the encoding {own} does not go with the locale `{locale}`, which is of {charset}"
            ),
            format!("say `encoding: {charset}`, or another locale; `C` goes with every encoding"),
        )
    })
}

/// What is to be said of an extension that Debian's PostgreSQL of this version does not bring.
pub(crate) fn strange_extension(version: u16, name: &str) -> Option<(String, String)> {
    if version != VERSION || EXTENSIONS.contains(&name) {
        return None;
    }
    let help = hints::nearest(name, &EXTENSIONS).map_or_else(
        || "reconcile installs no package for it: have it on each server".to_owned(),
        |meant| format!("did you mean `{meant}`? Otherwise have its package on each server"),
    );
    Some((
        format!("the extension `{name}` is not in Debian's package of PostgreSQL {version}"),
        help,
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn encodings_are_known_by_all_their_names() {
        for name in
            ["UTF8", "utf-8", "Unicode", "latin1", "ISO-8859-15", "windows-1252", "SQL_ASCII"]
        {
            assert_eq!(wrong_encoding(name, None), None, "{name}");
        }
        for name in ["UTF9", "utf16", "SJIS", "", "big5"] {
            assert!(wrong_encoding(name, None).is_some(), "{name}");
        }
        assert_eq!(wrong_encoding("UTF8", Some("de_DE.UTF-8")), None);
        assert_eq!(wrong_encoding("LATIN9", Some("de_DE.ISO-8859-15@euro")), None);
        assert_eq!(wrong_encoding("LATIN1", Some("C")), None);
        assert!(wrong_encoding("LATIN1", Some("C.UTF-8")).is_some());
    }
}
