//! A lab's network: its own bridge with no way out, and pulling a server's cable.
//!
//! Must not touch an interface that does not belong to a server of the lab.

use std::net::Ipv4Addr;

use serde::Deserialize;
use sha2::{Digest, Sha256};

use crate::command::Invocation;
use crate::engine::{docker, exists, list};
use crate::error::{LabError, Result};

/// Subnets come from 10.200.0.0 to 10.249.255.0, a /24 each: far from what Docker (172.16/12 and
/// up) and Swarm (10.0.0.0/8 from below) take by themselves, in the servers and outside.
const SECOND: std::ops::Range<u16> = 200..250;
const CHOICES: u32 = 50 * 256;

/// A /24.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Subnet(u8, u8);

impl Subnet {
    /// The gateway: the bridge's own address.
    pub(crate) fn gateway(self) -> Ipv4Addr {
        Ipv4Addr::new(10, self.0, self.1, 1)
    }

    /// The address of server N, counted from 1.
    pub(crate) fn server(self, number: u8) -> Ipv4Addr {
        Ipv4Addr::new(10, self.0, self.1, 10 + number)
    }

    /// In CIDR form.
    pub(crate) fn cidr(self) -> String {
        format!("10.{}.{}.0/24", self.0, self.1)
    }

    fn overlaps(self, (address, bits): (Ipv4Addr, u32)) -> bool {
        let shift = 32 - bits.min(24);
        let own = u32::from(self.gateway());
        shift < 32 && own >> shift == u32::from(address) >> shift
    }
}

/// The subnet that a lab's name leads to: the first from the name's own place in the range that
/// no route of this machine overlaps.
pub(crate) async fn choose(name: &str) -> Result<Subnet> {
    let answer = Invocation::new("ip")
        .args(["-json", "-4", "route", "show", "table", "all"])
        .run("list this machine's routes")
        .await?;
    let mut taken: Vec<_> = routes(&answer)?;
    let networks = list("list docker networks", &["network", "ls", "--quiet"]).await?;
    if !networks.is_empty() {
        let format = "{{range .IPAM.Config}}{{.Subnet}} {{end}}";
        let subnets = docker(["network", "inspect", "--format", format])
            .args(&networks)
            .run("read the docker networks' subnets")
            .await?;
        taken.extend(subnets.split_whitespace().filter_map(cidr));
    }
    derive(name, &taken).ok_or_else(|| {
        LabError::Refused("no free /24 between 10.200.0.0 and 10.249.255.0".to_owned())
    })
}

fn derive(name: &str, taken: &[(Ipv4Addr, u32)]) -> Option<Subnet> {
    let digest = Sha256::digest(name.as_bytes());
    let place = u32::from_be_bytes([digest[0], digest[1], digest[2], digest[3]]);
    (0..CHOICES)
        .map(|step| (place % CHOICES + step) % CHOICES)
        .filter_map(|index| {
            let second = SECOND.start + u16::try_from(index / 256).ok()?;
            Some(Subnet(u8::try_from(second).ok()?, u8::try_from(index % 256).ok()?))
        })
        .find(|subnet| !taken.iter().any(|&other| subnet.overlaps(other)))
}

/// Reads `a.b.c.d/n`, or a single address.
pub(crate) fn cidr(text: &str) -> Option<(Ipv4Addr, u32)> {
    let (address, bits) = text.split_once('/').unwrap_or((text, "32"));
    Some((address.parse().ok()?, bits.parse().ok()?))
}

/// The subnet written in CIDR form by [`Subnet::cidr`].
pub(crate) fn parse(text: &str) -> Option<Subnet> {
    let (address, bits) = cidr(text)?;
    let [10, second, third, 0] = address.octets() else {
        return None;
    };
    (bits == 24).then_some(Subnet(second, third))
}

fn routes(answer: &str) -> Result<Vec<(Ipv4Addr, u32)>> {
    #[derive(Deserialize)]
    struct Route {
        dst: String,
    }
    let routes: Vec<Route> = parse_json("routes of this machine", answer)?;
    Ok(routes.iter().filter_map(|route| cidr(&route.dst)).collect())
}

/// Creates a lab's network unless it is there.
pub(crate) async fn ensure(network: &str, subnet: Subnet, labels: &[String]) -> Result<()> {
    if exists("network", network).await? {
        return Ok(());
    }
    // The bridge takes the subnet's first address by itself.
    let mut create = docker(["network", "create", "--internal", "--subnet", &subnet.cidr()]);
    for label in labels {
        create = create.args(["--label", label]);
    }
    create
        .arg(network)
        .run(&format!("create network {network} ({})", subnet.cidr()))
        .await
        .map(drop)
}

/// One link of this machine, as `ip -json link` tells it.
#[derive(Debug, Deserialize)]
struct Link {
    ifindex: u32,
    ifname: String,
    flags: Vec<String>,
}

/// Takes this machine's end of a server's cable down or up. Down is a pulled cable: neither side
/// hears the other, nothing is refused, and the server keeps its address.
pub(crate) async fn plug(container: &str, plugged: bool) -> Result<()> {
    let link = link(container).await?;
    let state = if plugged { "up" } else { "down" };
    Invocation::new("ip")
        .args(["link", "set", "dev", &link.ifname, state])
        .run(&format!("set the link of {container} {state}"))
        .await
        .map(drop)
}

/// Whether a running server's cable is in.
pub(crate) async fn plugged(container: &str) -> Result<bool> {
    Ok(link(container).await?.flags.iter().any(|flag| flag == "UP"))
}

async fn link(container: &str) -> Result<Link> {
    let index = docker(["exec", container, "cat", "/sys/class/net/eth0/iflink"])
        .run(&format!("find the link of {container}"))
        .await?;
    let answer = Invocation::new("ip")
        .args(["-json", "link", "show"])
        .run("list this machine's links")
        .await?;
    let links: Vec<Link> = parse_json("links of this machine", &answer)?;
    links
        .into_iter()
        // Not any interface will do, should an index ever be read wrong.
        .find(|link| link.ifindex.to_string() == index.trim() && link.ifname.starts_with("veth"))
        .ok_or_else(|| LabError::Malformed {
            what: format!("link {} of {container}", index.trim()),
            reason: "this machine has no such veth".to_owned(),
        })
}

fn parse_json<T: serde::de::DeserializeOwned>(what: &str, text: &str) -> Result<T> {
    serde_json::from_str(text)
        .map_err(|error| LabError::Malformed { what: what.to_owned(), reason: error.to_string() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_always_leads_to_the_same_subnet() {
        let first = derive("lab", &[]).expect("the range is free");
        assert_eq!(derive("lab", &[]), Some(first));
        assert_ne!(derive("other", &[]), Some(first));
        assert_eq!(parse(&first.cidr()), Some(first));
        assert!(SECOND.contains(&u16::from(first.0)));
    }

    #[test]
    fn a_taken_subnet_is_stepped_over() {
        let first = derive("lab", &[]).expect("the range is free");
        let taken = cidr(&first.cidr()).expect("it is a CIDR");
        let second = derive("lab", &[taken]).expect("the rest is free");
        assert_ne!(first, second);
        let half = (Ipv4Addr::new(10, 0, 0, 0), 8);
        assert_eq!(derive("lab", &[half]), None);
        let default = (Ipv4Addr::UNSPECIFIED, 0);
        assert_eq!(derive("lab", &[default]), Some(first));
    }

    #[test]
    fn routes_are_read_from_what_ip_prints() {
        let text = r#"[{"dst":"default","gateway":"192.0.2.1","dev":"eth0"},
            {"dst":"10.201.7.0/24","dev":"br-1"},{"type":"local","dst":"127.0.0.1"}]"#;
        let routes = routes(text).expect("it is what ip prints");
        assert_eq!(routes.len(), 2);
        assert!(Subnet(201, 7).overlaps(routes[0]));
        assert!(!Subnet(201, 8).overlaps(routes[0]));
    }
}
