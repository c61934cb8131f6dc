//! The rules on the host: the second wall, around all slots of an instance at once.
//!
//! They match interfaces by the instance's prefix and addresses by its subnet, so that nothing is added or
//! removed here when slots come and go.

use std::io;
use std::net::Ipv4Addr;

use super::expression::{ConnectionState, End, Is, Side};
use super::{At, Batch, Changes, Otherwise, TableFamily};
use crate::address::{CLOSED, Subnet};
use crate::name::link_prefix;
use sprite_types::InstanceId;

const NAME_PREFIX: &str = "sprited-";
const CLOSED_SET: &str = "closed";
/// Outside addresses of machines that sleep.
const SLEEPERS: &str = "sleepers";
/// Of a packet for one of them: the IPv4 header without options.
pub(crate) const SNAPLEN: u32 = 20;
/// Packets for sleepers that are told: whoever floods one must not keep us busy.
const MOST_TOLD: u32 = 1000;

/// The name of an instance's table.
pub(crate) fn host_table_name(instance: &InstanceId) -> String {
    format!("{NAME_PREFIX}{instance}")
}

/// Whose table this is.
pub(crate) fn instance_of_table(name: &str) -> Option<InstanceId> {
    name.strip_prefix(NAME_PREFIX)?.parse().ok()
}

/// Makes the table, or makes it anew, in one step: there is no moment without it. Packets that come for
/// `sleepers`, in connections that they opened, are told to netfilter's log group `group`.
pub(crate) fn install_host_table(
    instance: &InstanceId,
    subnet: Subnet,
    group: u16,
    sleepers: &[Ipv4Addr],
) -> io::Result<()> {
    let prefix = link_prefix(instance);
    let slots = prefix.as_str();
    let mut batch = Batch::new(TableFamily::Inet, &host_table_name(instance));
    // Deleting what is not there would fail the batch; creating what is there does not.
    batch.table();
    batch.delete_table();
    batch.table();
    batch.set(CLOSED_SET, &CLOSED);
    batch.addresses(SLEEPERS);
    if !sleepers.is_empty() {
        batch.add_addresses(SLEEPERS, sleepers);
    }

    // Nothing that a slot sends is for the host itself, by whichever of its addresses.
    batch.chain("input", At::Input, Otherwise::Accept);
    batch.rule("input", |rule| {
        rule.interface_prefix(Side::In, Is::Equal, slots).drop()
    });

    batch.chain("forward", At::Forward, Otherwise::Accept);
    let from_slot = |rule: super::Rule| rule.interface_prefix(Side::In, Is::Equal, slots);
    batch.rule("forward", |rule| from_slot(rule).ipv4(Is::Unequal).drop());
    batch.rule("forward", |rule| {
        from_slot(rule)
            .ipv4(Is::Equal)
            .subnet(End::Source, Is::Unequal, subnet)
            .drop()
    });
    batch.rule("forward", |rule| {
        from_slot(rule)
            .ipv4(Is::Equal)
            .address_in(End::Destination, CLOSED_SET)
            .drop()
    });
    batch.rule("forward", |rule| {
        from_slot(rule)
            .interface_prefix(Side::Out, Is::Equal, slots)
            .drop()
    });
    let to_slot = |rule: super::Rule| rule.interface_prefix(Side::Out, Is::Equal, slots);
    batch.rule("forward", |rule| {
        to_slot(rule)
            .ipv4(Is::Equal)
            .connection(ConnectionState::ESTABLISHED)
            .address_in(End::Destination, SLEEPERS)
            .at_most_each_second(MOST_TOLD)
            .tell(group, SNAPLEN)
    });
    batch.rule("forward", |rule| {
        to_slot(rule)
            .connection(ConnectionState::ESTABLISHED_OR_RELATED)
            .accept()
    });
    batch.rule("forward", |rule| to_slot(rule).drop());

    batch.chain("postrouting", At::PostroutingNat, Otherwise::Accept);
    batch.rule("postrouting", |rule| {
        rule.ipv4(Is::Equal)
            .subnet(End::Source, Is::Equal, subnet)
            .interface_prefix(Side::Out, Is::Unequal, slots)
            .masquerade()
    });
    batch.commit()
}

/// From now on packets for that address are told. Idempotent.
pub(crate) fn add_sleeper(
    changes: &mut Changes,
    instance: &InstanceId,
    address: Ipv4Addr,
) -> io::Result<()> {
    let mut batch = Batch::new(TableFamily::Inet, &host_table_name(instance));
    batch.add_addresses(SLEEPERS, &[address]);
    changes.commit(batch)
}

/// From now on packets for that address are not told. Idempotent.
pub(crate) fn remove_sleeper(
    changes: &mut Changes,
    instance: &InstanceId,
    address: Ipv4Addr,
) -> io::Result<()> {
    let mut batch = Batch::new(TableFamily::Inet, &host_table_name(instance));
    batch.remove_address(SLEEPERS, address);
    match changes.commit(batch) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

/// Removes the table, if it is there.
pub(crate) fn remove_host_table(instance: &InstanceId) -> io::Result<()> {
    let mut batch = Batch::new(TableFamily::Inet, &host_table_name(instance));
    batch.delete_table();
    match batch.commit() {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}
