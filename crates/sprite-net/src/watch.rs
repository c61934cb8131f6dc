//! Noticing what others do to the host while machines run.
//!
//! * `nft flush ruleset` (a restart of the host's own firewall service) takes our table with it: it is
//!   installed again at once. Until then a slot's router still keeps private addresses closed.
//! * A new default route or interface (a VPN, another network) becomes an uplink: it has to forward.
//! * Someone switches forwarding off for the whole host (`sysctl --system` with an old file): ours goes on again.
//!
//! All are events that the kernel sends; nothing is polled.

use std::error::Error;
use std::io;
use std::sync::Arc;

use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio_util::sync::CancellationToken;

use crate::build::Site;
use crate::error::NetError;
use crate::netlink::{Family, Socket};
use crate::netns::in_thread;
use crate::nft::{TableEvent, TableFamily, host_table_name, table_event, tables};
use crate::route::{CHANGE_GROUPS, Change, change};
use crate::site;

/// The bit of `NFNLGRP_NFTABLES`.
const NFTABLES_GROUP: u32 = 1 << (libc::NFNLGRP_NFTABLES - 1);

/// Subscriptions to the kernel's events, from the moment they are begun.
pub(crate) struct Watch {
    rules: AsyncFd<Socket>,
    routes: AsyncFd<Socket>,
}

impl Watch {
    /// Subscribes. Within a runtime, on a thread in the host's namespace.
    pub(crate) fn begin() -> Result<Self, NetError> {
        let subscribe = |family, groups| -> io::Result<AsyncFd<Socket>> {
            let socket = Socket::subscribe(family, groups)?;
            // SAFETY: a `Socket` owns its file descriptor, which no method closes or replaces.
            Ok(unsafe { AsyncFd::register_with_interest(socket, Interest::READABLE) }?)
        };
        let begin = || -> io::Result<Self> {
            Ok(Self {
                rules: subscribe(Family::Netfilter, NFTABLES_GROUP)?,
                routes: subscribe(Family::Route, CHANGE_GROUPS)?,
            })
        };
        begin().map_err(NetError::step("watch the host's rules and routes"))
    }

    /// Follows the events until `stop`.
    pub(crate) async fn run(self, site: Arc<Site>, stop: CancellationToken) {
        let table = host_table_name(&site.instance);
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                deleted = table_deleted(&self.rules, &table) => match deleted {
                    Ok(true) => restore_table(&site).await,
                    Ok(false) => {}
                    Err(error) => return tracing::error!(%error, "the host's rules are not watched any more"),
                },
                changed = routes_changed(&self.routes) => match changed {
                    Ok(Change::Nothing) => {}
                    Ok(change) => follow(&site, change).await,
                    Err(error) => return tracing::error!(%error, "the host's routes are not watched any more"),
                },
            }
        }
    }
}

/// Waits for events and reads all that there are, so that a burst is one event; false when some were lost.
async fn told(
    socket: &AsyncFd<Socket>,
    mut each: impl FnMut(crate::netlink::Reply<'_>),
) -> io::Result<bool> {
    let drain = |socket: &Socket| {
        let mut all = socket.told(&mut each)?;
        loop {
            match socket.told(&mut each) {
                Ok(whole) => all &= whole,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(all),
                Err(error) => return Err(error),
            }
        }
    };
    socket.async_io(Interest::READABLE, drain).await
}

/// Waits for the next changes of rules; whether our table may be gone.
async fn table_deleted(rules: &AsyncFd<Socket>, table: &str) -> io::Result<bool> {
    let mut deleted = false;
    let all = told(rules, |reply| {
        deleted |= table_event(reply) == TableEvent::Deleted(table.to_owned());
    })
    .await?;
    Ok(deleted || !all)
}

async fn restore_table(site: &Arc<Site>) {
    let site = Arc::clone(site);
    let restored = in_thread(move || {
        // Making it anew deletes it too, as part of one step; only when it is gone is there work.
        let there = tables(TableFamily::Inet)
            .map_err(NetError::step("list nftables tables"))?
            .contains(&host_table_name(&site.instance));
        if there {
            return Ok(());
        }
        tracing::warn!("our nftables table was deleted by someone else; installing it again");
        site::install_table(&site)
    });
    if let Err(error) = restored.await {
        let error: &dyn Error = &error;
        tracing::error!(error, "machines are not kept from the host's own addresses");
    }
}

/// Waits for the next changes of routes, interfaces and settings; the weightiest of them.
async fn routes_changed(routes: &AsyncFd<Socket>) -> io::Result<Change> {
    let mut weightiest = Change::Nothing;
    let all = told(routes, |reply| weightiest = weightiest.max(change(reply))).await?;
    // What was lost may have been anything.
    Ok(if all {
        weightiest
    } else {
        Change::ForwardingOff
    })
}

async fn follow(site: &Arc<Site>, change: Change) {
    let site = Arc::clone(site);
    let followed = in_thread(move || match change {
        Change::Nothing => Ok(()),
        Change::Uplinks => site::follow_uplinks(&site),
        Change::ForwardingOff => {
            tracing::warn!(
                "forwarding was switched off for the whole host; switching ours on again"
            );
            site::restore_forwarding(&site)
        }
    });
    if let Err(error) = followed.await {
        let error: &dyn Error = &error;
        tracing::error!(error, "machines may have no way out of the host");
    }
}
