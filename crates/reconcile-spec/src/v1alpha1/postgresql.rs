//! The database's part of the file format.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::Scalar;

structure! {
    /// PostgreSQL.
    pub struct Postgresql {
        /// Major version, 13 to 17. Default: 15.
        #[schemars(range(min = 1, max = 99))]
        pub version: Option<u16>,
        /// Version of the packages of this major version, exactly as the package source names it; a
        /// newer one is rolled out. Default: what it offers.
        #[schemars(length(min = 1))]
        pub package_version: Option<String>,
        /// TCP port. Default: 5432.
        #[schemars(range(min = 1, max = 65535))]
        pub port: Option<u16>,
        /// Absolute path of the data directory. Default: `/var/lib/postgresql/<version>/main`.
        #[schemars(length(min = 1))]
        pub data_dir: Option<String>,
        /// Absolute path of PostgreSQL's programs. Default: `/usr/lib/postgresql/<version>/bin`.
        #[schemars(length(min = 1))]
        pub bin_dir: Option<String>,
        /// Addresses to listen on. Default: `nodeAddress`.
        pub listen: Option<Listen>,
        /// How a new cluster is initialised; never applied to an existing one.
        pub initdb: Option<Initdb>,
        /// Server parameters, over a few defaults. Those that Patroni sets itself are refused.
        pub parameters: BTreeMap<String, Scalar>,
        /// Lines for pg_hba.conf, in order; reconcile adds those that the cluster itself needs.
        pub hba: Vec<HbaRule>,
        /// Roles; reconcile adds those that the cluster itself needs.
        pub roles: Vec<Role>,
        /// Databases.
        pub databases: Vec<Database>,
    }
}

/// Addresses that PostgreSQL listens on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub enum Listen {
    /// The host's address and loopback.
    NodeAddress,
    /// All addresses.
    All,
}

structure! {
    /// How a new cluster is initialised; never applied to an existing one.
    pub struct Initdb {
        /// Checksums on data pages. Default: true.
        pub data_checksums: Option<bool>,
        /// Encoding of the template databases. Default: UTF8.
        #[schemars(length(min = 1))]
        pub encoding: Option<String>,
        /// Locale of the template databases. Default: C.UTF-8.
        #[schemars(length(min = 1))]
        pub locale: Option<String>,
    }
}

structure! {
    /// A line of pg_hba.conf.
    pub struct HbaRule {
        /// Kind of connection.
        #[serde(rename = "type")]
        #[schemars(extend("x-required" = true))]
        pub kind: Option<HbaType>,
        /// Database, several with commas, or `all`.
        #[schemars(extend("x-required" = true), length(min = 1))]
        pub database: String,
        /// Role, several with commas, or `all`.
        #[schemars(extend("x-required" = true), length(min = 1))]
        pub user: String,
        /// Network in CIDR notation, host name, `samehost`, `samenet` or `all`; not for `local`.
        #[schemars(length(min = 1))]
        pub address: Option<String>,
        /// How the client proves who it is: scram-sha-256, cert, peer, gss, ldap or reject.
        /// Default: scram-sha-256.
        #[schemars(length(min = 1))]
        pub method: Option<String>,
        /// Options of the method.
        pub options: BTreeMap<String, Scalar>,
        /// The roles of this file that the line keeps out are meant to be kept out. Without it a change of
        /// these lines that would lock out an application is not made. Default: false.
        pub deliberate: Option<bool>,
    }
}

/// Kind of connection that a line of pg_hba.conf is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
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

structure! {
    /// The name of a secret, where its value is wanted.
    pub struct PasswordRef {
        /// Name in the secrets source; never the value itself.
        #[schemars(extend("x-required" = true), length(min = 1))]
        pub secret: String,
    }
}

structure! {
    /// A role.
    pub struct Role {
        /// Name.
        #[schemars(extend("x-required" = true), length(min = 1, max = 63))]
        pub name: String,
        /// Where its password comes from: `{ secret: NAME }`. Without one it has no password.
        pub password: Option<PasswordRef>,
        /// May log in. Default: true.
        pub login: Option<bool>,
        /// Is bound by no permission. Default: false.
        pub superuser: Option<bool>,
        /// May create databases. Default: false.
        pub createdb: Option<bool>,
        /// May create roles. Default: false.
        pub createrole: Option<bool>,
        /// May replicate. Default: false.
        pub replication: Option<bool>,
        /// Has the permissions of the roles that it is a member of without asking. Default: true.
        pub inherit: Option<bool>,
        /// Most connections at once. Default: no limit.
        #[schemars(range(min = 0, max = 262_143))]
        pub connection_limit: Option<u32>,
        /// Roles whose member it is.
        pub member_of: Vec<String>,
    }
}

structure! {
    /// A database.
    pub struct Database {
        /// Name.
        #[schemars(extend("x-required" = true), length(min = 1, max = 63))]
        pub name: String,
        /// Owner, one of `roles`. Default: postgres.
        #[schemars(length(min = 1))]
        pub owner: Option<String>,
        /// Encoding. Default: that of the template.
        #[schemars(length(min = 1))]
        pub encoding: Option<String>,
        /// Locale. Default: that of the template.
        #[schemars(length(min = 1))]
        pub locale: Option<String>,
        /// Template. Default: `template0` if encoding or locale is said, else `template1`.
        #[schemars(length(min = 1))]
        pub template: Option<String>,
        /// Extensions that it has.
        pub extensions: Vec<String>,
        /// Schemas that it has, owned by the database's owner.
        pub schemas: Vec<String>,
    }
}
