//! Why machines may have no network on this host, in words that a person can act on.

use std::fs;
use std::sync::Arc;

use crate::address::Subnet;
use crate::build::Site;
use crate::dns::Upstream;
use crate::error::NetError;
use crate::name::link_prefix;
use crate::netns::in_thread;
use crate::network::Network;
use crate::nft::{BaseChain, Hook, Policy, chains, instance_of_table};
use crate::probe::{self, Outcome};

/// Something on the host that keeps machines from the network.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// What is wrong.
    pub problem: String,
    /// What to type or do.
    pub remedy: String,
}

pub(crate) async fn diagnose(
    network: &Network,
    site: &Arc<Site>,
    upstream: &Upstream,
) -> Result<Vec<Finding>, NetError> {
    let mut findings = Vec::new();
    if let Err(error) = upstream.resolvers().now() {
        let path = upstream.resolvers().path().display();
        findings.push(Finding {
            problem: format!("machines cannot look up names: {error}"),
            remedy: format!("write the address of a name server into {path}: nameserver ADDRESS"),
        });
    }
    if !in_thread(crate::site::has_default_route).await? {
        findings.push(Finding {
            problem: "the host has no IPv4 default route, so machines reach nothing".to_owned(),
            remedy:
                "connect the host to a network, or add a route: ip route add default via GATEWAY"
                    .to_owned(),
        });
    }
    let slot = network.acquire().await?;
    let (probed, id) = (Arc::clone(site), slot.id);
    let outcome = in_thread(move || probe::run(&probed, &slot)).await;
    network.release(id).await?;
    let direction = match outcome? {
        Outcome::Passed => return Ok(findings),
        Outcome::StoppedOutward => "from machines to the network",
        Outcome::StoppedBack => "from the network back to machines",
    };
    let (instance, subnet) = (site.instance.clone(), site.subnet);
    let found = in_thread(move || {
        let chains = chains().map_err(NetError::step("list nftables chains"))?;
        // Missing where the older iptables is not in the kernel.
        let legacy = fs::read_to_string("/proc/net/ip_tables_names").unwrap_or_default();
        Ok(explain(
            &chains,
            &legacy,
            direction,
            &link_prefix(&instance),
            subnet,
        ))
    });
    findings.extend(found.await?);
    Ok(findings)
}

/// Names whoever drops what the host forwards, and how to tell them about our interfaces (`prefix` and more)
/// and addresses.
fn explain(
    chains: &[BaseChain],
    legacy_tables: &str,
    direction: &str,
    prefix: &str,
    subnet: Subnet,
) -> Vec<Finding> {
    let problem = |who: &str| format!("{who} drops packets {direction}");
    let mut findings = Vec::new();
    let dropping = chains.iter().filter(|chain| {
        chain.base == Some((Hook::Forward, Policy::Drop))
            && matches!(chain.family_name(), "inet" | "ip")
            && instance_of_table(&chain.table).is_none()
    });
    for chain in dropping {
        let BaseChain { table, name, .. } = chain;
        let place = format!("{} {table} {name}", chain.family_name());
        let has = |start: &str| {
            chains.iter().any(|other| {
                other.table == *table
                    && other.family == chain.family
                    && other.name.starts_with(start)
            })
        };
        let (who, remedy) = if has("DOCKER-USER") {
            (
                "Docker's firewall".to_owned(),
                iptables("iptables", "DOCKER-USER", prefix),
            )
        } else if has("ufw-") {
            ("ufw".to_owned(), format!("ufw route allow from {subnet}"))
        } else {
            (
                format!("the chain `{place}`"),
                format!(
                    "nft insert rule {place} iifname '\"{prefix}*\"' accept && \
                     nft insert rule {place} oifname '\"{prefix}*\"' ct state established,related accept"
                ),
            )
        };
        findings.push(Finding {
            problem: problem(&who),
            remedy,
        });
    }
    if chains.iter().any(|chain| chain.table == "firewalld") {
        findings.push(Finding {
            problem: problem("firewalld"),
            remedy: format!(
                "firewall-cmd --permanent --zone=trusted --add-source={subnet} && firewall-cmd --reload"
            ),
        });
    }
    if findings.is_empty() && legacy_tables.lines().any(|table| table == "filter") {
        findings.push(Finding {
            problem: problem("a rule of iptables-legacy"),
            remedy: iptables("iptables-legacy", "FORWARD", prefix),
        });
    }
    if findings.is_empty() {
        findings.push(Finding {
            problem: problem("a firewall on this host"),
            remedy: format!(
                "let it forward what comes in by interfaces {prefix}*, and the answers to it"
            ),
        });
    }
    findings
}

fn iptables(program: &str, chain: &str, prefix: &str) -> String {
    format!(
        "{program} -I {chain} -i {prefix}+ -j ACCEPT && \
         {program} -I {chain} -o {prefix}+ -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT"
    )
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    fn chain(table: &str, name: &str, base: Option<(Hook, Policy)>) -> BaseChain {
        BaseChain {
            family: 2,
            table: table.to_owned(),
            name: name.to_owned(),
            base,
        }
    }

    fn remedies(chains: &[BaseChain], legacy: &str) -> Vec<String> {
        let subnet = Subnet::new(Ipv4Addr::new(100, 64, 0, 0), 20);
        let findings = explain(chains, legacy, "out", "spabcdef", subnet);
        findings.into_iter().map(|finding| finding.remedy).collect()
    }

    #[test]
    fn each_firewall_has_its_remedy() {
        let dropping = chain("filter", "FORWARD", Some((Hook::Forward, Policy::Drop)));
        let docker = [dropping.clone(), chain("filter", "DOCKER-USER", None)];
        assert!(remedies(&docker, "")[0].starts_with("iptables -I DOCKER-USER -i spabcdef+"));
        let ufw = [
            dropping.clone(),
            chain("filter", "ufw-before-forward", None),
        ];
        assert_eq!(remedies(&ufw, ""), ["ufw route allow from 100.64.0.0/20"]);
        let own = remedies(std::slice::from_ref(&dropping), "");
        assert!(
            own[0].starts_with("nft insert rule ip filter FORWARD iifname"),
            "{own:?}"
        );
        let firewalld = [chain(
            "firewalld",
            "filter_FORWARD",
            Some((Hook::Forward, Policy::Accept)),
        )];
        assert!(remedies(&firewalld, "")[0].starts_with("firewall-cmd --permanent"));
        assert!(remedies(&[], "nat\nfilter\n")[0].starts_with("iptables-legacy -I FORWARD"));
        assert!(remedies(&[], "")[0].contains("spabcdef*"));
    }

    #[test]
    fn chains_that_stop_nothing_are_not_accused() {
        let chains = [
            chain(
                "sprited-abcdef",
                "forward",
                Some((Hook::Forward, Policy::Drop)),
            ),
            chain("filter", "INPUT", Some((Hook::Other, Policy::Drop))),
            chain("filter", "FORWARD", Some((Hook::Forward, Policy::Accept))),
        ];
        assert!(
            remedies(&chains, "")[0].contains("spabcdef*"),
            "only the general advice"
        );
    }
}
