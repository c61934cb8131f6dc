//! Why machines have no network, as told to a person.

mod support;

use std::process::Command;

use support::*;

/// A firewall of someone else's: what its rules do not accept is not forwarded.
fn foreign_firewall(chains: &[&str], rules: &[&str]) {
    let mut text = String::from(
        "add table ip filter\n\
         add chain ip filter FORWARD { type filter hook forward priority 0; policy drop; }\n",
    );
    for chain in chains {
        text += &format!("add chain ip filter {chain}\n");
    }
    for rule in rules {
        text += &format!("add rule ip filter FORWARD {rule}\n");
    }
    nft(&text);
}

#[test]
fn a_healthy_host_has_no_findings() {
    on_a_host(|| async {
        let (network, instance) = open(0).await;
        assert_eq!(network.diagnose().await.expect("diagnosed"), []);
        network.close().await.expect("closed");
        assert_eq!(traces(&instance), Vec::<String>::new());
    });
}

#[test]
fn a_firewall_that_drops_forwarding_is_named_and_its_remedy_works() {
    on_a_host(|| async {
        let server = serve_tcp(internet(), (INTERNET, 0)).await;
        foreign_firewall(&[], &[]);
        let (network, _) = open(0).await;
        let slot = network.acquire().await.expect("slot");
        assert!(try_tcp(&slot.guest_netns, server).await.is_err());
        let findings = network.diagnose().await.expect("diagnosed");
        let [finding] = findings.as_slice() else {
            panic!("{findings:?}")
        };
        assert!(
            finding.problem.contains("`ip filter FORWARD`"),
            "{finding:?}"
        );
        assert!(finding.problem.contains("from machines"), "{finding:?}");
        let typed = Command::new("sh")
            .args(["-c", &finding.remedy])
            .status()
            .expect("sh");
        assert!(typed.success(), "{}", finding.remedy);
        assert_eq!(network.diagnose().await.expect("diagnosed"), []);
        assert!(ask_tcp(&slot.guest_netns, server).await.is_ok());
    });
}

#[test]
fn a_firewall_that_lets_machines_pass_is_not_accused() {
    on_a_host(|| async {
        let (network, _) = open(0).await;
        foreign_firewall(
            &[],
            &[
                "iifname \"sp*\" accept",
                "ct state established,related accept",
            ],
        );
        assert_eq!(network.diagnose().await.expect("diagnosed"), []);
    });
}

#[test]
fn answers_that_are_dropped_are_told_apart_and_docker_is_known() {
    on_a_host(|| async {
        foreign_firewall(&["DOCKER-USER"], &["iifname \"sp*\" accept"]);
        let (network, instance) = open(0).await;
        let findings = network.diagnose().await.expect("diagnosed");
        let [finding] = findings.as_slice() else {
            panic!("{findings:?}")
        };
        assert!(finding.problem.contains("Docker"), "{finding:?}");
        assert!(finding.problem.contains("back to machines"), "{finding:?}");
        assert!(
            finding
                .remedy
                .contains(&format!("-I DOCKER-USER -i sp{instance}+")),
            "{finding:?}"
        );
    });
}

#[test]
fn a_host_without_route_or_resolvers_is_told() {
    on_a_host(|| async {
        let options = options(0);
        std::fs::remove_file(&options.resolv_conf).expect("removed");
        run("ip route del default");
        let network = sprite_net::Network::open(options).await.expect("open");
        let findings = network.diagnose().await.expect("diagnosed");
        let problems: Vec<&str> = findings.iter().map(|f| f.problem.as_str()).collect();
        assert_eq!(findings.len(), 2, "{problems:?}");
        assert!(problems[0].contains("look up names"), "{problems:?}");
        assert!(problems[1].contains("default route"), "{problems:?}");
    });
}
