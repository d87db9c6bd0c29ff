//! From the text of a file to its clusters, or to everything that is wrong with it.

use std::collections::BTreeMap;

use crate::check;
use crate::fault::{Fault, Faults, Place, Related, Severity};
use crate::report::{Source, report_hiding};
use crate::schema;
use crate::tree;
use crate::v1alpha1::PostgresCluster;
use crate::valid::ValidSpec;
use crate::validate;

/// What a file says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Loaded {
    /// Its clusters, in order; at least one.
    pub clusters: Vec<ValidSpec>,
    /// What a person should look at, with places, in the order of the file.
    pub warnings: Vec<Fault>,
}

/// Reads the desired-state file `text`, called `file_name` in messages.
///
/// Either every document of it is valid, or all faults of all documents come back at once
/// (those of the YAML itself excepted, for nothing can be read beyond the first of them).
pub fn load(file_name: &str, text: &str) -> Result<Loaded, Faults> {
    let mut faults = Vec::new();
    let mut clusters = Vec::new();
    let mut hidden = Vec::new();
    // Editors on Windows put a byte order mark in front; it would count as a column.
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    match tree::read(text) {
        Ok(documents) => {
            if documents.is_empty() {
                faults.push(
                    Fault::error("", "the file says nothing")
                        .help("start from examples/three-servers.yaml"),
                );
            }
            let mut seen = Seen::default();
            for root in &documents {
                let (cluster, found) = document(root, &mut seen, &mut hidden);
                clusters.extend(cluster);
                faults.extend(found);
            }
        }
        Err(fault) => faults.push(*fault),
    }
    faults.sort_by(|a, b| (a.place, &a.message, &a.path).cmp(&(b.place, &b.message, &b.path)));
    if faults.iter().any(|fault| fault.severity == Severity::Error) {
        let report = report_hiding(&faults, Source { name: file_name, text }, &hidden);
        return Err(Faults { faults, report });
    }
    Ok(Loaded { clusters, warnings: faults })
}

/// What earlier documents of the file have taken.
#[derive(Default)]
struct Seen {
    names: BTreeMap<String, Option<Place>>,
    addresses: BTreeMap<String, Option<Place>>,
}

fn document(
    root: &tree::Node,
    seen: &mut Seen,
    hidden: &mut Vec<Place>,
) -> (Option<ValidSpec>, Vec<Fault>) {
    let checked = check::check(root, schema::schema());
    hidden.extend(checked.hidden);
    let mut faults = checked.faults;
    let cluster = match serde_json::from_value::<PostgresCluster>(checked.json) {
        Ok(document) => {
            let (cluster, found) = validate::validate(&document, &checked.places, &faults);
            faults.extend(found);
            faults.extend(across(&document, &checked.places, seen));
            cluster
        }
        // The walk lets nothing through that the types refuse; if it ever does, this tells.
        Err(error) => {
            faults.push(Fault::error("", format!("the document does not fit its schema: {error}")));
            None
        }
    };
    for fault in &mut faults {
        checked.places.resolve(fault);
    }
    let refused = faults.iter().any(|fault| fault.severity == Severity::Error);
    (cluster.filter(|_| !refused), faults)
}

/// Rules between the documents of a file: one name is one cluster, one host carries one cluster.
fn across(
    document: &PostgresCluster,
    places: &crate::fault::Places,
    seen: &mut Seen,
) -> Vec<Fault> {
    let mut faults = Vec::new();
    let mut clash = |taken: &mut BTreeMap<String, Option<Place>>, text: &str, mut fault: Fault| {
        if text.is_empty() {
            return;
        }
        places.resolve(&mut fault);
        match taken.get(text) {
            Some(first) => {
                fault.related.push(Related {
                    path: fault.path.clone(),
                    label: "in an earlier document".to_owned(),
                    place: *first,
                });
                faults.push(fault);
            }
            None => {
                taken.insert(text.to_owned(), fault.place);
            }
        }
    };
    let name = &document.metadata.name;
    let fault = Fault::error("metadata.name", format!("two clusters are called `{name}`"))
        .help("the name is Patroni's scope; each cluster needs its own");
    clash(&mut seen.names, name, fault);
    // Two hosts of one document with one address are the business of that document.
    let mut own = std::collections::BTreeSet::new();
    for (index, host) in document.spec.hosts.iter().enumerate() {
        if !own.insert(&host.address) {
            continue;
        }
        let fault = Fault::error(
            format!("spec.hosts[{index}].address"),
            format!("{} is a host of two clusters", host.address),
        )
        .help("a host carries one cluster: its units and ports are named once");
        clash(&mut seen.addresses, &host.address, fault);
    }
    faults
}
