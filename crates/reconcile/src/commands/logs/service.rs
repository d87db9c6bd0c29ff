//! What Docker says of a service's log: the lines of the nodes that it reaches, then what it could
//! not get, by the Swarm's ids. The lines are kept and the ids become names.

use super::{
    Reach,
    line::{Line, of_service, plain},
};

/// Docker's word for lines that are not all.
const INCOMPLETE: &str = "incomplete log stream";
const REASONS: &str = "for the following reasons: ";
/// Before the Swarm's nodes, which are told only where the log was not all of it.
const NODE: &str = "reconcile-node ";

/// Names come from the desired state, whose rules keep them to letters, digits, `_`, `-` and `.`.
pub(super) fn script(service: &str, reach: Reach) -> String {
    let since = reach.seconds.map_or_else(String::new, |seconds| format!(" --since {seconds}s"));
    let lines = reach.lines;
    format!(
        "docker service logs --timestamps --no-trunc --tail {lines}{since} {service} 2>&1 && exit\n\
         status=$?\necho\n\
         docker node ls --format '{NODE}{{{{.ID}}}} {{{{.Hostname}}}}' 2>/dev/null\n\
         exit $status\n"
    )
}

/// What was told.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Answer {
    pub(super) lines: Vec<Line>,
    /// Nodes whose lines are not among them, and why, as far as Docker says it.
    pub(super) missing: Vec<Missing>,
}

/// A part of a log that Docker could not get.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Missing {
    /// The server, where it is one.
    pub(super) host: Option<String>,
    pub(super) why: String,
}

impl Missing {
    /// As a note says it.
    pub(super) fn told(&self, component: &str) -> String {
        match &self.host {
            Some(host) => format!("read the log of {component} on {host}: {}", self.why),
            None => format!("read the log of {component}: {}", self.why),
        }
    }
}

/// Reads what the script printed. Err: nothing of it was a log, but this.
pub(super) fn answer(status: u32, text: &str) -> Result<Answer, String> {
    let (mut lines, mut odd, mut nodes) = (Vec::new(), Vec::new(), Vec::new());
    for text in text.lines() {
        if let Some((id, name)) = text.strip_prefix(NODE).and_then(|node| node.split_once(' ')) {
            nodes.push((id, name));
        } else if let Some(line) = of_service(text) {
            lines.push(line);
        } else if !text.trim().is_empty() {
            odd.push(text);
        }
    }
    if status == 0 {
        return Ok(Answer { lines, missing: Vec::new() });
    }
    let said = odd.last().copied().unwrap_or("it said nothing");
    if !said.contains(INCOMPLETE) {
        return Err(plain(said));
    }
    let reasons = said.split_once(REASONS).map_or(said, |(_, reasons)| reasons);
    let mut missing: Vec<Missing> = Vec::new();
    for reason in reasons.split(", ") {
        let node = nodes.iter().find(|(id, _)| reason.split(' ').any(|word| word == *id));
        let one = match node {
            Some((id, name)) if reason == format!("node {id} is not available") => Missing {
                host: Some((*name).to_owned()),
                why: "the Swarm does not reach this server; its lines are missing here".to_owned(),
            },
            Some((id, name)) => {
                Missing { host: Some((*name).to_owned()), why: plain(&reason.replace(id, name)) }
            }
            None => Missing { host: None, why: plain(reason) },
        };
        if !missing.contains(&one) {
            missing.push(one);
        }
    }
    // Of a task that waits on such a server nothing more is known than that.
    if missing.iter().any(|one| one.host.is_some()) {
        missing.retain(|one| one.host.is_some() || !one.why.starts_with("task "));
    }
    Ok(Answer { lines, missing })
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIVE: &str = "2025-11-22T08:26:42.750000000Z db-utils_haproxy.2.abc@node3    | of node3\n\
        2025-11-22T08:26:41.750000000Z db-utils_haproxy.1.abd@node1    | of node1\n";
    const NODES: &str =
        "\nreconcile-node l6pthoi81h4 node2\nreconcile-node aaa node1\nreconcile-node bbb node3\n";

    fn incomplete(reasons: &str) -> String {
        format!(
            "{LIVE}error from daemon in stream: Error grabbing logs: rpc error: code = Unknown desc = \
             warning: incomplete log stream. some logs could not be retrieved for the following \
             reasons: {reasons}\n{NODES}"
        )
    }

    #[test]
    fn a_dead_server_takes_no_lines_of_the_others_away_and_is_told_by_its_name() {
        let text = incomplete("node l6pthoi81h4 is not available, task xyz has not been scheduled");
        let answer = answer(1, &text).expect("lines");
        let lines: Vec<_> = answer.lines.iter().map(|line| line.text.as_str()).collect();
        assert_eq!(lines, ["of node3", "of node1"]);
        let told: Vec<_> = answer.missing.iter().map(|one| one.told("haproxy")).collect();
        assert_eq!(
            told,
            [
                "read the log of haproxy on node2: the Swarm does not reach this server; its lines are missing here"
            ]
        );
    }

    #[test]
    fn reasons_that_are_not_known_are_told_as_docker_tells_them() {
        let text = incomplete("node l6pthoi81h4 disconnected unexpectedly");
        let answer = answer(1, &text).expect("lines");
        let [one] = answer.missing.as_slice() else { panic!("{answer:?}") };
        assert_eq!(
            one.told("haproxy"),
            "read the log of haproxy on node2: node node2 disconnected unexpectedly"
        );
        let text = incomplete("task xyz has not been scheduled");
        let answer = super::answer(1, &text).expect("lines");
        assert_eq!(answer.missing[0].why, "task xyz has not been scheduled");
    }

    #[test]
    fn what_is_no_log_at_all_is_a_fault() {
        let said = "Error response from daemon: This node is not a swarm manager.";
        assert_eq!(answer(1, &format!("{said}\n\n")), Err(said.to_owned()));
        assert_eq!(answer(0, LIVE).expect("lines").missing, []);
    }

    #[test]
    fn the_script_ends_as_docker_ends() {
        let script = script("db-utils_haproxy", Reach { lines: 5, seconds: Some(60) });
        let stub =
            "docker() { [ \"$1\" = service ] && { echo \"$*\"; return 1; }; echo \"$4\"; }\n";
        let shell = |stub: &str| {
            let script = stub.to_owned() + &script;
            std::process::Command::new("sh").args(["-c", &script]).output().expect("sh runs")
        };
        let ran = shell(stub);
        assert_eq!(ran.status.code(), Some(1));
        assert_eq!(
            String::from_utf8_lossy(&ran.stdout),
            "service logs --timestamps --no-trunc --tail 5 --since 60s db-utils_haproxy\n\n\
             reconcile-node {{.ID}} {{.Hostname}}\n"
        );
        let ran = shell("docker() { echo \"$1\"; }\n");
        assert_eq!(ran.status.code(), Some(0));
        assert_eq!(String::from_utf8_lossy(&ran.stdout), "service\n");
    }
}
