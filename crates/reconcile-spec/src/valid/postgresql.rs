//! The database's part of the validated specification.

use std::collections::BTreeMap;

use serde::Serialize;

use super::{DatabaseName, ExtensionName, RoleName, SchemaName, SecretName};

/// PostgreSQL.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Postgresql {
    /// Major version, 13 to 17.
    pub version: u16,
    /// Version of the packages, exactly as the package source names it; none: what it offers.
    pub package_version: Option<String>,
    /// TCP port.
    pub port: u16,
    /// Absolute path of the data directory.
    pub data_dir: String,
    /// Absolute path of the directory of `postgres`, `pg_ctl` and so on.
    pub bin_dir: String,
    /// Addresses to listen on.
    pub listen: Listen,
    /// How a new cluster is initialised; never applied to an existing one.
    pub initdb: Initdb,
    /// Server parameters, name to value as written, booleans as `on` and `off`; without those
    /// that Patroni sets itself.
    pub parameters: BTreeMap<String, String>,
    /// Rules of the user for pg_hba.conf, in order; those of the system are not among them.
    pub hba: Vec<HbaRule>,
    /// Roles; those of the system are not among them.
    pub roles: Vec<Role>,
    /// Databases.
    pub databases: Vec<Database>,
}

/// Addresses that PostgreSQL listens on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum Listen {
    /// The host's address and loopback.
    NodeAddress,
    /// All.
    All,
}

/// How a new cluster is initialised.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Initdb {
    /// Checksums on data pages.
    pub data_checksums: bool,
    /// Encoding of the template databases.
    pub encoding: String,
    /// Locale of the template databases.
    pub locale: String,
}

/// A line of pg_hba.conf.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct HbaRule {
    /// Kind of connection.
    #[serde(rename = "type")]
    pub kind: HbaType,
    /// Database column, as written.
    pub database: String,
    /// User column, as written.
    pub user: String,
    /// Address column; none exactly for [`HbaType::Local`].
    pub address: Option<String>,
    /// How the client proves who it is.
    pub method: HbaMethod,
    /// Options of the method.
    pub options: BTreeMap<String, String>,
    /// Whom it keeps out is meant to be kept out.
    pub deliberate: bool,
}

/// Kind of connection that a line of pg_hba.conf is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum HbaType {
    /// Unix socket.
    Local,
    /// TCP, with or without TLS.
    Host,
    /// TCP with TLS.
    Hostssl,
    /// TCP without TLS.
    Hostnossl,
}

impl HbaType {
    /// The word in pg_hba.conf.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Local => "local",
            Self::Host => "host",
            Self::Hostssl => "hostssl",
            Self::Hostnossl => "hostnossl",
        }
    }
}

/// How a client proves who it is; without those methods that prove nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum HbaMethod {
    /// Password by SCRAM.
    #[serde(rename = "scram-sha-256")]
    ScramSha256,
    /// TLS client certificate.
    Cert,
    /// The operating system's user, on Unix sockets.
    Peer,
    /// GSSAPI (Kerberos).
    Gss,
    /// LDAP.
    Ldap,
    /// Refuse the connection.
    Reject,
}

impl HbaMethod {
    /// The word in pg_hba.conf.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::ScramSha256 => "scram-sha-256",
            Self::Cert => "cert",
            Self::Peer => "peer",
            Self::Gss => "gss",
            Self::Ldap => "ldap",
            Self::Reject => "reject",
        }
    }
}

/// The name of a secret, where its value is wanted.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct SecretRef {
    /// Name in the secrets source.
    pub name: SecretName,
}

/// A role.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Role {
    /// Name.
    pub name: RoleName,
    /// Where its password comes from; none: it has no password.
    pub password: Option<SecretRef>,
    /// May log in.
    pub login: bool,
    /// Is bound by no permission.
    pub superuser: bool,
    /// May create databases.
    pub createdb: bool,
    /// May create roles.
    pub createrole: bool,
    /// May replicate.
    pub replication: bool,
    /// Has the permissions of the roles that it is a member of without asking.
    pub inherit: bool,
    /// Most connections at once; none: no limit.
    pub connection_limit: Option<u32>,
    /// Roles whose member it is.
    pub member_of: Vec<RoleName>,
}

/// A database.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Database {
    /// Name.
    pub name: DatabaseName,
    /// Owner.
    pub owner: RoleName,
    /// Encoding; none: that of the template.
    pub encoding: Option<String>,
    /// Locale; none: that of the template.
    pub locale: Option<String>,
    /// Template; `template0` if encoding or locale is said, else `template1`.
    pub template: String,
    /// Extensions that it has.
    pub extensions: Vec<ExtensionName>,
    /// Schemas that it has, owned by the owner of the database.
    pub schemas: Vec<SchemaName>,
}
