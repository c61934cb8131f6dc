//! The rules in a slot's router namespace: the first wall, which no one on the host can flush by accident.

use std::io;
use std::net::Ipv4Addr;

use sprite_types::Egress;

use super::expression::{ConnectionState, End, Is, Refusal, Rule, Side, Transport};
use super::{At, Batch, Otherwise, TableFamily, tables};
use crate::address::{CLOSED, GATEWAY, GUEST_IP};
use crate::build::{GATEWAY_LINK, UP_LINK};

const TABLE: &str = "router";
/// Its existence is what closes a slot, so that it can be seen after a restart.
const CLOSED_TABLE: &str = "closed";
const CLOSED_SET: &str = "closed";

/// Most connections (and UDP flows) that a machine has to the outside at once. The host's own table of
/// connections is shared by all: 65,536 entries on small hosts, so that sixteen machines at their limit fill
/// it and not one.
const MOST_CONNECTIONS: u32 = 4096;

/// Makes the rules in the namespace of the calling thread, which is a slot's fresh router namespace.
///
/// The machine may open connections to the outside, under its slot's `outside` address, and talk DNS with the
/// gateway. It is told at once what it may not do (a reset, or ICMP "prohibited"), since programs that look
/// for a metadata service would otherwise wait for minutes. Nobody opens connections to the machine this way.
pub(crate) fn install_router_table(outside: Ipv4Addr) -> io::Result<()> {
    let mut batch = Batch::new(TableFamily::Ip, TABLE);
    batch.table();
    batch.set(CLOSED_SET, &CLOSED);
    forward(&mut batch);
    input(&mut batch);
    batch.chain("postrouting", At::PostroutingNat, Otherwise::Accept);
    batch.rule("postrouting", |rule| {
        rule.interface(Side::Out, Is::Equal, UP_LINK)
            .source_nat(outside)
    });
    batch.commit()
}

/// Closes or opens the router in whose namespace the calling thread stands. Idempotent.
///
/// Closed, no packet passes between the machine and the outside in either direction, whatever connection it
/// belongs to: what one base chain drops, no other gets back. A table of its own, so that the change is one batch
/// and the other rules stay as they are. The machine's TCP is told at once, also in connections that it had.
pub(crate) fn set_egress(egress: Egress) -> io::Result<()> {
    let now = egress_of_namespace()?;
    let mut batch = Batch::new(TableFamily::Ip, CLOSED_TABLE);
    match (now, egress) {
        (Egress::Open, Egress::Open) | (Egress::Closed, Egress::Closed) => return Ok(()),
        (Egress::Closed, Egress::Open) => batch.delete_table(),
        (Egress::Open, Egress::Closed) => {
            let from_machine = |rule: Rule| rule.interface(Side::In, Is::Equal, GATEWAY_LINK);
            batch.table();
            batch.chain("forward", At::Forward, Otherwise::Drop);
            batch.rule("forward", |rule| {
                from_machine(rule)
                    .transport(Transport::Tcp)
                    .reject(Refusal::TcpReset)
            });
            batch.rule("forward", |rule| {
                from_machine(rule).reject(Refusal::Prohibited)
            });
        }
    }
    batch.commit()
}

/// Whether the router is closed in whose namespace the calling thread stands.
pub(crate) fn egress_of_namespace() -> io::Result<Egress> {
    let closed = tables(TableFamily::Ip)?
        .iter()
        .any(|table| table == CLOSED_TABLE);
    Ok(if closed { Egress::Closed } else { Egress::Open })
}

fn forward(batch: &mut Batch) {
    let closed = |rule: Rule| rule.address_in(End::Destination, CLOSED_SET);
    batch.chain("forward", At::Forward, Otherwise::Drop);
    batch.rule("forward", |rule| {
        rule.connection(ConnectionState::ESTABLISHED_OR_RELATED)
            .accept()
    });
    batch.rule("forward", |rule| {
        rule.interface(Side::In, Is::Unequal, GATEWAY_LINK).drop()
    });
    batch.rule("forward", |rule| {
        rule.address(End::Source, Is::Unequal, GUEST_IP).drop()
    });
    batch.rule("forward", |rule| {
        closed(rule)
            .transport(Transport::Tcp)
            .reject(Refusal::TcpReset)
    });
    batch.rule("forward", |rule| closed(rule).reject(Refusal::Prohibited));
    batch.rule("forward", |rule| {
        rule.connection(ConnectionState::NEW)
            .more_connections_than(MOST_CONNECTIONS)
            .drop()
    });
    batch.rule("forward", |rule| {
        rule.connection(ConnectionState::NEW).accept()
    });
}

fn input(batch: &mut Batch) {
    let to_gateway = |rule: Rule| {
        rule.interface(Side::In, Is::Equal, GATEWAY_LINK)
            .address(End::Source, Is::Equal, GUEST_IP)
            .address(End::Destination, Is::Equal, GATEWAY)
    };
    batch.chain("input", At::Input, Otherwise::Drop);
    for transport in [Transport::Udp, Transport::Tcp] {
        batch.rule("input", |rule| {
            to_gateway(rule)
                .transport(transport)
                .destination_port(53)
                .accept()
        });
    }
    batch.rule("input", |rule| {
        to_gateway(rule)
            .transport(Transport::Icmp)
            .echo_request()
            .accept()
    });
    batch.rule("input", |rule| {
        to_gateway(rule)
            .transport(Transport::Tcp)
            .reject(Refusal::TcpReset)
    });
}
