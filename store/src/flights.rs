//! Pages that are being read: requests that want the same page at once read it once.
//!
//! The first one claims the page and reads it, the others wait for it. A request reads what it has claimed before it waits, so no
//! two requests wait for each other. Where the first one fails or is cancelled, the next one reads the page itself.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::watch;

use crate::cache::FileKey;
use crate::page_part::PagePart;

type PageKey = (FileKey, u32);

/// The pages that are being read, by any request. Clones share them.
#[derive(Clone, Default)]
pub(crate) struct Flights(Arc<Mutex<HashMap<PageKey, watch::Receiver<Option<PagePart>>>>>);

/// Pages of a file that one request reads. The others find what it has read, or that it has ended without them.
pub(crate) struct Claimed {
    flights: Flights,
    file: FileKey,
    senders: HashMap<u32, watch::Sender<Option<PagePart>>>,
}

/// A page that another request reads.
pub(crate) struct Awaited {
    pub(crate) page: u32,
    receiver: watch::Receiver<Option<PagePart>>,
}

impl Flights {
    fn lock(&self) -> MutexGuard<'_, HashMap<PageKey, watch::Receiver<Option<PagePart>>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Claims those of `pages` that no request reads. The others are to be waited for, after the claimed ones are read.
    pub(crate) fn claim(&self, file: FileKey, pages: &[u32]) -> (Claimed, Vec<Awaited>) {
        let mut claimed = Claimed { flights: self.clone(), file, senders: HashMap::new() };
        let mut awaited = Vec::new();
        let mut flights = self.lock();
        for &page in pages {
            match flights.entry((file, page)) {
                Entry::Occupied(flight) => awaited.push(Awaited { page, receiver: flight.get().clone() }),
                Entry::Vacant(free) => {
                    let (sender, receiver) = watch::channel(None);
                    free.insert(receiver);
                    claimed.senders.insert(page, sender);
                }
            }
        }
        drop(flights);
        (claimed, awaited)
    }

    /// Number of pages that are being read.
    #[cfg(test)]
    pub(crate) fn count(&self) -> usize {
        self.lock().len()
    }
}

impl Claimed {
    /// Whether the request has claimed `page`.
    pub(crate) fn contains(&self, page: u32) -> bool {
        self.senders.contains_key(&page)
    }

    /// Gives what was read of a page that was claimed to those who wait for it.
    pub(crate) fn found(&self, page: u32, part: &PagePart) {
        if let Some(sender) = self.senders.get(&page).filter(|sender| sender.receiver_count() > 1) {
            sender.send_replace(Some(part.clone()));
        }
    }
}

impl Drop for Claimed {
    fn drop(&mut self) {
        let mut flights = self.flights.lock();
        for page in self.senders.keys() {
            flights.remove(&(self.file, *page));
        }
    }
}

impl Awaited {
    /// What was read of the page, or `None` if the request that has claimed it ended without it.
    pub(crate) async fn part(mut self) -> Option<PagePart> {
        let found = self.receiver.wait_for(Option::is_some).await.ok()?;
        found.clone()
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use tsdb::Ulid;

    use super::*;
    use crate::cache::BlockKey;

    #[tokio::test]
    async fn those_who_wait_get_what_was_read_or_learn_that_it_was_not() {
        let flights = Flights::default();
        let block = BlockKey { bucket: 0, block: Ulid::nil() };
        let (file, other) = (FileKey { block, file: 0 }, FileKey { block, file: 1 });
        let (first, none) = flights.claim(file, &[1, 2]);
        let (second, awaited) = flights.claim(file, &[1, 2, 3]);
        let (third, of_other_file) = flights.claim(other, &[1]);
        assert!(none.is_empty() && of_other_file.is_empty());
        assert_eq!(
            [first.contains(2), first.contains(3), second.contains(2), second.contains(3)],
            [true, false, false, true]
        );
        let part = PagePart::whole(Bytes::from_static(b"page 1"));
        first.found(1, &part);
        drop((first, third));
        let mut found = Vec::new();
        for page in awaited {
            found.push((page.page, page.part().await));
        }
        assert_eq!(found, [(1, Some(part)), (2, None)]);
        assert_eq!(flights.count(), 1);
        assert!(flights.claim(file, &[2]).1.is_empty());
        drop(second);
        assert_eq!(flights.count(), 0);
    }
}
