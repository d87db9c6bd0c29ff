//! A real Git host over SSH and HTTPS: the deploy key and the token get in, the host is proven by
//! its pinned key or its authority, and what is wrong is said, at once, and without the token.

use std::{fs, path::Path, time::Duration};

use crate::{
    harness::{GitHost, Lab, ProcessWatch, Ran, Secrets, Signer},
    t54_git::committed,
};

/// Nothing asks anybody for anything, so nothing waits.
const AT_ONCE: Duration = Duration::from_secs(20);

/// Reads the file from a place, with these options and nothing of the user's own.
fn validate(lab: &Lab, place: &str, options: &[(&str, &Path)]) -> Ran {
    let mut words = vec!["validate".to_owned()];
    for (name, file) in options {
        words.extend([format!("--git-{name}"), file.display().to_string()]);
    }
    let state = lab.dir().join("state-of-git-hosts");
    words.extend(["--state-dir".to_owned(), state.display().to_string()]);
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let ran = lab.reconcile(Path::new(place), &words);
    assert!(ran.took < AT_ONCE, "{ran}");
    ran
}

fn push(host: &GitHost, lab: &Lab) {
    host.repository.commit("as it is", Signer::Nobody, "cluster.yaml", committed(lab));
    host.repository.push(&[]);
}

#[test]
fn over_ssh_with_a_deploy_key_and_a_pinned_host_key() {
    let lab = Lab::shared();
    let host = GitHost::start(&lab);
    push(&host, &lab);
    let (place, key, known) = (host.ssh(), host.file("ada"), host.file("known_hosts"));
    let as_ada =
        |known: &Path| validate(&lab, &place, &[("ssh-key", &key), ("known-hosts", known)]);
    as_ada(&known).expect(0).says("cluster main is valid");

    let other = [("ssh-key", host.file("eve")), ("known-hosts", known.clone())];
    let other: Vec<_> = other.iter().map(|(name, file)| (*name, file.as_path())).collect();
    validate(&lab, &place, &other).expect(1).says("Permission denied");

    let strange = host.file("strange_hosts");
    let pinned = fs::read_to_string(&known).expect("pinned");
    let eve = fs::read_to_string(host.file("eve.pub")).expect("a public key");
    let eve = eve.rsplit_once(' ').expect("a comment").0;
    for text in [String::new(), format!("{} {eve}\n", host.address)] {
        fs::write(&strange, &text).expect("written");
        as_ada(&strange).expect(1).says("Host key verification failed");
        assert_eq!(fs::read_to_string(&strange).expect("read"), text, "a key was learnt");
    }
    assert_eq!(fs::read_to_string(&known).expect("read"), pinned);
    let gone = host.file("gone");
    validate(&lab, &place, &[("ssh-key", &gone), ("known-hosts", &known)])
        .expect(1)
        .says("read the SSH key file");
}

#[test]
fn over_https_with_a_token_and_a_private_authority() {
    let lab = Lab::shared();
    let host = GitHost::start(&lab);
    push(&host, &lab);
    let token = host.file("token");
    let text = fs::read_to_string(&token).expect("read");
    let secrets = Secrets::of([("token".to_owned(), text.trim().to_owned())].into());
    let watch = ProcessWatch::start(&secrets);
    let ca = host.file("ca.pem");
    let silent = |ran: Ran| {
        secrets.absent_from("the output", &ran.to_string());
        ran
    };
    let read = |place: &str, options: &[(&str, &Path)]| silent(validate(&lab, place, options));
    let place = host.https();
    for _ in 0..3 {
        read(&place, &[("token-file", &token), ("ca", &ca)])
            .expect(0)
            .says("cluster main is valid");
    }
    read(&place, &[("token-file", &token)]).expect(1).says("certificate");
    read(&place, &[("ca", &ca)]).expect(1);
    let wrong = host.file("wrong");
    fs::write(&wrong, "another-token-7Qx\n").expect("written");
    read(&place, &[("token-file", &wrong), ("ca", &ca)]).expect(1).says("Authentication failed");
    assert_eq!(fs::read_to_string(&wrong).expect("read"), "another-token-7Qx\n");

    // The host sends us elsewhere: the token stays at home.
    let moved = place.replace("/team/", "/moved/");
    read(&moved, &[("token-file", &token), ("ca", &ca)]).expect(1);
    let log = host.sh("cat /var/log/git-access.log");
    assert!(log.lines().any(|line| line.starts_with("443 ") && line.contains("auth=Basic ")));
    let elsewhere = log.lines().filter(|line| line.starts_with("8443 "));
    assert!(elsewhere.clone().all(|line| line.ends_with("auth=-")), "{log}");
    println!("{} requests went elsewhere, without the token", elsewhere.count());
    println!("processes were looked at {} times", watch.finish());
    let state = lab.dir().join("state-of-git-hosts");
    let found = Lab::engine(&format!("grep -rl '{}' {} || true", text.trim(), state.display()));
    assert_eq!(found, "", "the token was kept");
}
