//! `reconcile lab`: real servers on this machine.

use std::{
    fs::OpenOptions,
    io::{ErrorKind, Write as _},
};

use reconcile_lab::{Event, Lab, LabError, LabOptions, LabStatus, Progress, Scope};

use crate::{
    cli::{LabArgs, LabCommand},
    failure::{Failure, Outcome},
    output,
};

struct Lines;

impl Progress for Lines {
    fn event(&self, event: Event) {
        match event {
            Event::Began(stage) => output::note(&format!("{stage} …")),
            Event::Detail(stage, text) => output::note(&format!("  {stage}: {text}")),
            Event::Ended(stage, took) => {
                output::note(&format!("{stage} ready ({:.1} s)", took.as_secs_f64()));
            }
            _ => {}
        }
    }
}

fn failed(error: &LabError) -> Failure {
    Failure::from_error("the lab", error)
}

pub(super) async fn run(arguments: &LabArgs, _plain: bool) -> Result<Outcome, Failure> {
    let mut options = LabOptions {
        name: arguments.name.clone(),
        dir: arguments.dir.clone(),
        ..LabOptions::default()
    };
    match &arguments.command {
        LabCommand::Up { servers, no_docker } => {
            options.servers = *servers;
            options.docker = !no_docker;
            let lab = reconcile_lab::up(&options, &Lines).await.map_err(|error| failed(&error))?;
            output::print(&connect_text(&options, &lab))?;
            output::print(&next(&options, &lab)?)?;
        }
        LabCommand::Down { all } => {
            let scope = if *all { Scope::Everything } else { Scope::Lab };
            reconcile_lab::down(&options, scope, &Lines).await.map_err(|error| failed(&error))?;
        }
        LabCommand::Status { output: format } => {
            let status = reconcile_lab::status(&options).await.map_err(|error| failed(&error))?;
            output::print_as(*format, &status, |_| status_text(&status))?;
        }
        LabCommand::Exec { server, command } => {
            let result = reconcile_lab::exec(&options, server, command)
                .await
                .map_err(|error| failed(&error))?;
            output::print(&String::from_utf8_lossy(&result.stdout))?;
            // Where standard error is closed nobody is left to tell.
            let _unheard = anstream::stderr().write_all(&result.stderr);
            if result.code != 0 {
                return Err(Failure::new(format!(
                    "the command on {server} ended with {}",
                    result.code
                )));
            }
        }
        LabCommand::Stop { server } => {
            done(server, "off", reconcile_lab::stop(&options, server).await)?;
        }
        LabCommand::Start { server } => {
            done(server, "on, and its sshd answers", reconcile_lab::start(&options, server).await)?;
        }
        LabCommand::Cut { server } => {
            done(server, "cut off", reconcile_lab::cut(&options, server).await)?;
        }
        LabCommand::Heal { server } => {
            done(server, "on the network again", reconcile_lab::heal(&options, server).await)?;
        }
        LabCommand::Reset { server } => {
            let lab = reconcile_lab::reset(&options, server.as_deref(), &Lines)
                .await
                .map_err(|error| failed(&error))?;
            output::print(&connect_text(&options, &lab))?;
        }
    }
    Ok(Outcome::Done)
}

fn done<T>(server: &str, state: &str, result: Result<T, LabError>) -> Result<(), Failure> {
    result.map_err(|error| failed(&error))?;
    output::note(&format!("{server} is {state}"));
    Ok(())
}

fn connect_text(options: &LabOptions, lab: &Lab) -> String {
    let config = options.dir.join(&lab.name).join("ssh_config");
    let mut text = format!("lab {}: {} servers\n", lab.name, lab.servers.len());
    for server in &lab.servers {
        text.push_str(&format!(
            "  {} {}  ssh -F {} {}\n",
            server.name,
            server.address,
            config.display(),
            server.name
        ));
    }
    text
}

/// The example that a lab's file is made of, and the folder in it.
const EXAMPLE: &str = include_str!("../../../../examples/lab.yaml");
const FOLDER: &str = "../.lab/lab/";

/// What comes next, with a file that has this lab's addresses. One that is there is somebody's by now
/// and stays as it is.
fn next(options: &LabOptions, lab: &Lab) -> Result<String, Failure> {
    let Some(text) = file(lab) else {
        return Ok(
            "Next: a file of your own; examples/lab.yaml needs Docker on the servers\n".to_owned()
        );
    };
    let path = options.dir.join(&lab.name).join("cluster.yaml");
    let new = OpenOptions::new().write(true).create_new(true).open(&path);
    match new.and_then(|mut file| file.write_all(text.as_bytes())) {
        Ok(()) => {}
        Err(error) if error.kind() == ErrorKind::AlreadyExists => {}
        Err(error) => {
            return Err(Failure::from_error(format!("write {}", path.display()), &error));
        }
    }
    let path = path.display();
    Ok(format!(
        "Next, with examples/lab.yaml for these addresses:\n  \
         reconcile secrets init -f {path}\n  reconcile -f {path}\n  reconcile status -f {path}\n"
    ))
}

/// The example with a lab's servers; None where the lab has no Docker.
fn file(lab: &Lab) -> Option<String> {
    let network = |address: &str| Some(address.rsplit_once('.')?.0.to_owned() + ".");
    let (_, first) = EXAMPLE.split_once("name: node1, address: ")?;
    let (theirs, ours) = (network(first.split_once(' ')?.0)?, network(&lab.gateway.to_string())?);
    let is_server = |line: &&str| line.trim_start().starts_with("- { name: node");
    let (head, rest) = EXAMPLE.split_once("  hosts:\n").filter(|_| lab.docker)?;
    let mut text = format!("{head}  hosts:\n");
    for server in &lab.servers {
        text.push_str(&format!("    - {{ name: {}, address: {} }}\n", server.name, server.address));
    }
    for line in rest.lines().skip_while(is_server) {
        text.push_str(&format!("{line}\n"));
    }
    Some(text.replace(&theirs, &ours).replace(FOLDER, ""))
}

fn status_text(status: &LabStatus) -> String {
    let mut text = format!("lab {} in {}\n", status.name, status.dir.display());
    for server in &status.servers {
        text.push_str(&format!(
            "  {} {} {}{}{}\n",
            server.name,
            server.address,
            server.power,
            server.boot.as_ref().map_or_else(String::new, |boot| format!(", systemd {boot}")),
            if server.cut == Some(true) { ", cut off" } else { "" },
        ));
    }
    text
}

#[cfg(test)]
mod tests {
    use reconcile_lab::Server;

    use super::*;

    #[test]
    fn the_file_of_a_lab_is_valid_and_has_its_addresses() {
        let server = |number: u8| Server {
            name: format!("node{number}"),
            address: [10, 208, 152, 10 + number].into(),
            container: String::new(),
            host_key: None,
        };
        let mut lab = Lab {
            name: "mine".to_owned(),
            subnet: "10.208.152.0/24".to_owned(),
            gateway: [10, 208, 152, 1].into(),
            registry: "10.208.152.1:5000".to_owned(),
            images: Vec::new(),
            docker: true,
            servers: (1..=5).map(server).collect(),
        };
        let text = file(&lab).expect("a file");
        assert!(text.contains("- { name: node5, address: 10.208.152.15 }\n"), "{text}");
        assert!(text.contains("image: 10.208.152.1:5000/haproxy"), "{text}");
        assert!(!text.contains("10.212.211.") && !text.contains(".lab"), "{text}");
        let loaded = reconcile_spec::load("cluster.yaml", &text).expect("it is valid");
        assert_eq!(loaded.clusters[0].hosts.len(), 5);

        let place = tempfile::tempdir().expect("a folder");
        std::fs::create_dir(place.path().join("mine")).expect("made");
        let options = LabOptions {
            name: "mine".to_owned(),
            dir: place.path().to_owned(),
            ..LabOptions::default()
        };
        let said = next(&options, &lab).expect("written");
        let path = place.path().join("mine/cluster.yaml");
        assert!(said.contains(&format!("reconcile -f {}\n", path.display())), "{said}");
        assert_eq!(std::fs::read_to_string(&path).expect("there"), text);
        std::fs::write(&path, "mine").expect("written");
        next(&options, &lab).expect("it stays");
        assert_eq!(std::fs::read_to_string(&path).expect("there"), "mine");
        lab.docker = false;
        assert_eq!(file(&lab), None);
    }
}
