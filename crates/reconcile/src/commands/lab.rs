//! `reconcile lab`: real servers on this machine.

use std::io::Write as _;

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
