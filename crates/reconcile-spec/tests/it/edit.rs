//! Editing parameters in the text of a file: what was not meant stays to the byte.

use std::collections::BTreeMap;

use reconcile_spec::edit::{EditError, set_parameters};

const HEAD: &str = "apiVersion: reconcile/v1alpha1
kind: PostgresCluster
metadata: { name: main }
spec:
  # how we get in
  ssh: { user: root, knownHosts: known_hosts }
  hosts:
    - { name: node1, address: 192.0.2.11 }
";

fn head() -> String {
    HEAD.to_owned()
}

fn set(text: &str, values: &[(&str, Option<&str>)]) -> Result<String, EditError> {
    let values: BTreeMap<String, Option<String>> =
        values.iter().map(|(name, value)| ((*name).to_owned(), value.map(str::to_owned))).collect();
    set_parameters(text, "main", &values)
}

#[track_caller]
fn gives(tail: &str, values: &[(&str, Option<&str>)], wanted: &str) {
    let text = head() + tail;
    assert_eq!(set(&text, values).unwrap(), head() + wanted);
}

#[test]
fn a_value_is_replaced_where_it_stands_and_its_comment_stays() {
    gives(
        "  postgresql:\n    parameters:\n      work_mem: 8MB   # per sort\n      max_connections: 200\n",
        &[("work_mem", Some("64MB")), ("max_connections", Some("300"))],
        "  postgresql:\n    parameters:\n      work_mem: 64MB   # per sort\n      max_connections: 300\n",
    );
    gives(
        "  postgresql:\n    parameters:\n      work_mem: \"8MB\" # per sort\n      log_line_prefix: 'it''s %m '\n",
        &[("work_mem", Some("64MB")), ("log_line_prefix", Some("%m [%p] # "))],
        "  postgresql:\n    parameters:\n      work_mem: 64MB # per sort\n      log_line_prefix: \"%m [%p] # \"\n",
    );
}

#[test]
fn a_new_parameter_comes_behind_the_others() {
    gives(
        "  postgresql:\n    parameters:\n      # memory\n      work_mem: 8MB\n    # who may come in\n    hba: []\n",
        &[("autovacuum", Some("off"))],
        "  postgresql:\n    parameters:\n      # memory\n      work_mem: 8MB\n      autovacuum: \"off\"\n    # who may come in\n    hba: []\n",
    );
}

#[test]
fn braces_are_edited_inside() {
    gives(
        "  postgresql: { parameters: { work_mem: 8MB, max_connections: 200 } }\n",
        &[("max_connections", Some("300")), ("autovacuum_naptime", Some("30s"))],
        "  postgresql: { parameters: { autovacuum_naptime: 30s, work_mem: 8MB, max_connections: 300 } }\n",
    );
}

#[test]
fn what_is_missing_is_made() {
    gives(
        "  postgresql:\n    version: 15\n",
        &[("work_mem", Some("64MB"))],
        "  postgresql:\n    parameters:\n      work_mem: 64MB\n    version: 15\n",
    );
    let text = head();
    let after = set(&text, &[("work_mem", Some("64MB"))]).unwrap();
    let new = "  postgresql:\n    parameters:\n      work_mem: 64MB\n  ssh:";
    assert_eq!(after, text.replacen("  ssh:", new, 1));
}

#[test]
fn a_parameter_is_taken_out_with_its_line() {
    gives(
        "  postgresql:\n    parameters:\n      work_mem: 8MB\n      # kept\n      max_connections: 200\n",
        &[("work_mem", None)],
        "  postgresql:\n    parameters:\n      # kept\n      max_connections: 200\n",
    );
}

#[test]
fn what_cannot_be_edited_without_guessing_is_refused_with_its_place() {
    let folded = head() + "  postgresql:\n    parameters:\n      log_line_prefix: >-\n        %m\n";
    let error = set(&folded, &[("log_line_prefix", Some("%p"))]).unwrap_err();
    assert_eq!(error.to_string().split(':').next(), Some("line 11"), "{error}");
    // A plain value may go on in the next line; what is left of it must not become another's.
    let two = "  postgresql:\n    parameters:\n      log_line_prefix: abc\n      search_path: app,\n        public\n";
    let error = set(&(head() + two), &[("search_path", None)]).unwrap_err();
    assert!(error.to_string().contains("something else would change"), "{error}");
    let error = set(&head(), &[("work_mem", Some("lots"))]).unwrap_err();
    assert!(matches!(error, EditError::Refused(..)), "{error}");
    let error = set_parameters(&head(), "other", &BTreeMap::from([("a".to_owned(), None)]));
    assert_eq!(error, Err(EditError::NoCluster("other".to_owned())));
}

#[test]
fn a_file_with_several_clusters_is_edited_in_the_right_one() {
    let other = head().replace("name: main", "name: other").replace("192.0.2.11", "192.0.2.12");
    let text = format!("{other}---\n{}", head());
    let after = set(&text, &[("work_mem", Some("64MB"))]).unwrap();
    assert!(after.starts_with(&other), "{after}");
    assert!(after.contains("work_mem: 64MB"));
}
