//! HAProxy twice: the front that applications talk to, and the router that alone knows roles.
//!
//! The path is application → front → any healthy pooler → that node's router → PostgreSQL. The
//! role is checked *below* the poolers, so that clients keep their connections when it moves.

use reconcile_spec::{
    ClusterSpec,
    valid::{Checks, Component, ReadFallback, Timeouts},
};

use super::{header, line};

/// Path of the configuration in the container.
pub const CONFIG_PATH: &str = "/usr/local/etc/haproxy/haproxy.cfg";

fn preamble(spec: &ClusterSpec) -> String {
    let mut text = header("#", spec.name.as_str());
    let Timeouts { connect, client, server, check } = spec.haproxy.timeouts;
    let Checks { inter, fastinter, downinter, rise, fall } = spec.haproxy.checks;
    line(&mut text, format_args!("global"));
    line(&mut text, format_args!("    maxconn {}", spec.haproxy.maxconn));
    // With fewer file descriptors than `maxconn` wants, serve what can be served.
    line(&mut text, format_args!("    no strict-limits"));
    line(&mut text, format_args!("    log stdout format raw local0 notice"));
    line(&mut text, format_args!("    hard-stop-after {}s", hard_stop(spec)));
    line(&mut text, format_args!("\ndefaults"));
    line(&mut text, format_args!("    mode tcp"));
    line(&mut text, format_args!("    log global"));
    line(&mut text, format_args!("    option clitcpka"));
    line(&mut text, format_args!("    option srvtcpka"));
    line(&mut text, format_args!("    option redispatch"));
    line(&mut text, format_args!("    retries 2"));
    line(&mut text, format_args!("    timeout connect {}ms", connect.0));
    line(&mut text, format_args!("    timeout client {}ms", client.0));
    line(&mut text, format_args!("    timeout server {}ms", server.0));
    line(&mut text, format_args!("    timeout check {}ms", check.0));
    line(
        &mut text,
        format_args!(
            "    default-server inter {}ms fastinter {}ms downinter {}ms rise {rise} fall {fall} on-marked-down shutdown-sessions",
            inter.0, fastinter.0, downinter.0
        ),
    );
    text
}

/// The engine kills after the grace period; end by ourselves a little before.
fn hard_stop(spec: &ClusterSpec) -> u64 {
    spec.swarm.deploy.stop_grace.as_secs_ceil().saturating_sub(2).max(1)
}

/// The front: writes and reads to the poolers of every node, and a statistics page.
///
/// A pooler is fit when it accepts and its node's router lives, for it reaches PostgreSQL through
/// that router. Whether there *is* a primary is not asked: while none is there clients wait in
/// the poolers instead of losing their connections.
pub fn front(spec: &ClusterSpec) -> String {
    let mut text = preamble(spec);
    let haproxy = &spec.haproxy;
    for (name, port, pooler_port) in [
        ("write", haproxy.ports.write, spec.pgbouncer.ports.write),
        ("read", haproxy.ports.read, spec.pgbouncer.ports.read),
    ] {
        line(&mut text, format_args!("\nlisten {name}"));
        line(&mut text, format_args!("    bind :{port}"));
        line(&mut text, format_args!("    balance leastconn"));
        line(&mut text, format_args!("    option httpchk"));
        line(
            &mut text,
            format_args!("    http-check connect port {}", haproxy.router_ports.health),
        );
        line(
            &mut text,
            format_args!("    http-check send meth GET uri /health ver HTTP/1.1 hdr Host router"),
        );
        line(&mut text, format_args!("    http-check expect status 200"));
        line(&mut text, format_args!("    http-check connect port {pooler_port}"));
        for host in spec.swarm_hosts() {
            line(
                &mut text,
                format_args!("    server {} {}:{pooler_port} check", host.name, host.address),
            );
        }
    }
    stats(&mut text, &format!(":{}", haproxy.ports.stats));
    text
}

/// The router of a node, on loopback: the primary, and the replicas within `maxLag`.
pub fn router(spec: &ClusterSpec) -> String {
    let mut text = preamble(spec);
    let haproxy = &spec.haproxy;
    let ports = &haproxy.router_ports;
    let servers = |text: &mut String| {
        for host in spec.hosts_with(Component::Patroni) {
            line(
                text,
                format_args!(
                    "    server {} {}:{} check port {}",
                    host.name, host.address, spec.postgresql.port, spec.patroni.rest_api_port
                ),
            );
        }
    };
    let check = |text: &mut String, uri: &str| {
        line(text, format_args!("    option httpchk"));
        line(
            text,
            format_args!(
                "    http-check send meth OPTIONS uri {uri} ver HTTP/1.1 hdr Host patroni"
            ),
        );
        line(text, format_args!("    http-check expect status 200"));
    };
    line(&mut text, format_args!("\nlisten primary"));
    line(&mut text, format_args!("    bind 127.0.0.1:{}", ports.primary));
    check(&mut text, "/primary");
    servers(&mut text);

    line(&mut text, format_args!("\nfrontend replicas"));
    line(&mut text, format_args!("    bind 127.0.0.1:{}", ports.replicas));
    if haproxy.read_fallback == ReadFallback::Primary {
        line(&mut text, format_args!("    use_backend fallback if {{ nbsrv(replicas) eq 0 }}"));
    }
    line(&mut text, format_args!("    default_backend replicas"));
    line(&mut text, format_args!("\nbackend replicas"));
    line(&mut text, format_args!("    balance leastconn"));
    check(&mut text, &format!("/replica?lag={}", haproxy.max_lag.0));
    servers(&mut text);
    if haproxy.read_fallback == ReadFallback::Primary {
        line(&mut text, format_args!("\nbackend fallback"));
        check(&mut text, "/primary");
        servers(&mut text);
    }

    line(&mut text, format_args!("\nfrontend health"));
    line(&mut text, format_args!("    mode http"));
    line(&mut text, format_args!("    bind :{}", ports.health));
    line(&mut text, format_args!("    timeout client 5s"));
    line(&mut text, format_args!("    option dontlognull"));
    line(&mut text, format_args!("    monitor-uri /health"));
    stats(&mut text, &format!("127.0.0.1:{}", ports.stats));
    text
}

fn stats(text: &mut String, bind: &str) {
    line(text, format_args!("\nlisten stats"));
    line(text, format_args!("    mode http"));
    line(text, format_args!("    bind {bind}"));
    line(text, format_args!("    timeout client 10s"));
    line(text, format_args!("    stats enable"));
    line(text, format_args!("    stats uri /"));
    line(text, format_args!("    stats refresh 5s"));
}
