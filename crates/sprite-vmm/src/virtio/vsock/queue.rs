//! Packets between the rings and the hub, and the event that tells of a load.

use super::hub::Hub;
use super::metrics::VsockMetrics;
use super::packet::{HEADER_SIZE, Header};
use crate::virtio::{BrokenQueue, Interrupt, VirtQueue};

/// Packets moved in one go, so that other devices get their turn.
const BUDGET: usize = 64;
/// The event that says: all connections are gone. Source: VIRTIO 1.2, section 5.10.6.7.
const TRANSPORT_RESET: u32 = 0;

/// Whether all there was to do has been done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Progress {
    Done,
    MoreToDo,
}

/// Takes packets from the guest.
pub(super) fn take(
    queue: &mut VirtQueue,
    interrupt: &Interrupt,
    hub: &mut Hub,
    metrics: &VsockMetrics,
) -> Result<Progress, BrokenQueue> {
    let memory = queue.memory();
    let mut progress = Progress::MoreToDo;
    let mut returned = false;
    for _ in 0..BUDGET {
        // It goes on when the guest has taken some answers.
        if hub.is_stuffed() {
            progress = Progress::Done;
            break;
        }
        let Some(chain) = queue.pop(&memory)? else {
            if queue.ask_for_notification()? {
                continue;
            }
            progress = Progress::Done;
            break;
        };
        metrics.packets_to_host.inc();
        let mut header = [0; HEADER_SIZE];
        match chain.readable.split(HEADER_SIZE) {
            Some((front, data)) => {
                front.copy_to(&mut header);
                hub.guest_packet(Header::from_guest(&header, hub.guest_cid()), data);
            }
            None => metrics.stray.inc(),
        }
        queue.add_used(chain.head, 0)?;
        returned = true;
    }
    if returned && queue.wants_interrupt()? {
        interrupt.used_buffers();
    }
    Ok(progress)
}

/// Gives packets to the guest as long as it has room for them.
pub(super) fn give(
    queue: &mut VirtQueue,
    interrupt: &Interrupt,
    hub: &mut Hub,
    metrics: &VsockMetrics,
) -> Result<Progress, BrokenQueue> {
    let memory = queue.memory();
    let mut progress = Progress::MoreToDo;
    let mut returned = false;
    for _ in 0..BUDGET {
        if !hub.has_packets() {
            progress = Progress::Done;
            break;
        }
        let Some(chain) = queue.pop(&memory)? else {
            if queue.ask_for_notification()? {
                continue;
            }
            progress = Progress::Done;
            break;
        };
        let head = chain.head;
        let Some((front, room)) = chain.writable.split(HEADER_SIZE) else {
            // A buffer that no packet fits into: of no use to anyone.
            queue.add_used(head, 0)?;
            returned = true;
            continue;
        };
        let Some(header) = hub.next_packet(&room) else {
            queue.push_back(1);
            progress = Progress::Done;
            break;
        };
        front.copy_from(&header.to_guest(hub.guest_cid()));
        metrics.packets_to_guest.inc();
        metrics.bytes_to_guest.add(u64::from(header.len));
        // The data fits into a chain, which is shorter than 4 GiB.
        queue.add_used(
            head,
            u32::try_from(header.len as usize + HEADER_SIZE).unwrap_or(u32::MAX),
        )?;
        returned = true;
    }
    if returned && queue.wants_interrupt()? {
        interrupt.used_buffers();
    }
    Ok(progress)
}

/// How far the guest is with the news of a load.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum News {
    /// It need not be told, or has taken it.
    Taken,
    /// It has to be told.
    Untold,
    /// It has been told, when so many buffers for events were left; it returns the one it was told in.
    Told { left: u16 },
}

/// Tells the guest of a load, as far as it has room for that.
pub(super) fn tell(
    queue: &mut VirtQueue,
    interrupt: &Interrupt,
    news: News,
) -> Result<News, BrokenQueue> {
    match news {
        News::Taken => Ok(News::Taken),
        News::Told { left } => {
            // Other buffers are left, so a question for the next one to take would be answered already.
            if queue.ask_for_notification_of_more()? > left {
                return Ok(News::Taken);
            }
            Ok(news)
        }
        News::Untold => {
            let memory = queue.memory();
            let Some(chain) = queue.pop(&memory)? else {
                if queue.ask_for_notification()? {
                    return tell(queue, interrupt, news);
                }
                return Ok(news);
            };
            let event = TRANSPORT_RESET.to_le_bytes();
            let written = chain.writable.copy_from(&event);
            queue.add_used(chain.head, u32::try_from(written).expect("four bytes"))?;
            // Before the guest is woken: what it returns afterwards is more than this.
            let left = queue.ask_for_notification_of_more()?;
            if queue.wants_interrupt()? {
                interrupt.used_buffers();
            }
            Ok(News::Told { left })
        }
    }
}
