//! A map from numbers that follow each other, in pages.

use std::collections::HashMap;

/// Numbers of a page.
const PAGE: u64 = 64;

/// A map from numbers, most of which follow each other. Neighbours are beside each other in memory, unlike in a hash map: a scrape or a
/// record of the log goes through them in order.
pub(crate) struct PagedMap<V> {
    pages: HashMap<u64, Page<V>>,
}

/// The values of 64 numbers.
pub(crate) type Page<V> = Box<[Option<V>; PAGE as usize]>;

/// A page that was found before, so that a neighbour needs no search.
pub(crate) struct LastPage<'a, V>(Option<(u64, &'a Page<V>)>);

impl<V> Default for PagedMap<V> {
    fn default() -> Self {
        Self { pages: HashMap::new() }
    }
}

impl<V> Default for LastPage<'_, V> {
    fn default() -> Self {
        Self(None)
    }
}

impl<V> PagedMap<V> {
    pub(crate) fn get(&self, number: u64) -> Option<&V> {
        self.pages.get(&(number / PAGE))?[(number % PAGE) as usize].as_ref()
    }

    /// The same, faster after a neighbour.
    pub(crate) fn get_after<'a>(&'a self, last: &mut LastPage<'a, V>, number: u64) -> Option<&'a V> {
        let page = match last.0 {
            Some((found, page)) if found == number / PAGE => page,
            _ => {
                let page = self.pages.get(&(number / PAGE))?;
                last.0 = Some((number / PAGE, page));
                page
            }
        };
        page[(number % PAGE) as usize].as_ref()
    }

    pub(crate) fn insert(&mut self, number: u64, value: V) {
        let page =
            self.pages.entry(number / PAGE).or_insert_with(|| Box::new([const { None }; PAGE as usize]));
        page[(number % PAGE) as usize] = Some(value);
    }

    pub(crate) fn remove(&mut self, number: u64) -> Option<V> {
        let page = self.pages.get_mut(&(number / PAGE))?;
        let removed = page[(number % PAGE) as usize].take()?;
        if page.iter().all(Option::is_none) {
            self.pages.remove(&(number / PAGE));
        }
        Some(removed)
    }

    /// Removes the values that are not kept, and frees memory.
    pub(crate) fn retain(&mut self, is_kept: impl Fn(&V) -> bool) {
        self.pages.retain(|_, page| {
            for value in page.iter_mut() {
                value.take_if(|value| !is_kept(value));
            }
            page.iter().any(Option::is_some)
        });
        self.pages.shrink_to_fit();
    }

    /// Numbers and values, in no order.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (u64, &V)> {
        self.pages.iter().flat_map(|(number, page)| {
            let values = page.iter().enumerate();
            values.filter_map(move |(at, value)| Some((number * PAGE + at as u64, value.as_ref()?)))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_paged_map_is_a_map() {
        let (mut paged, mut map) = (PagedMap::default(), HashMap::new());
        let mut state = 5u64;
        let mut next = move || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            state >> 33
        };
        for round in 0..20_000u64 {
            let number =
                [next() % 300, u64::MAX - next() % 100, (next() << 20) + next() % 3][(next() % 3) as usize];
            match next() % 5 {
                0 => assert_eq!(paged.remove(number), map.remove(&number)),
                1 if round % 1_000 == 0 => {
                    paged.retain(|value| value % 3 != 0);
                    map.retain(|_, value| *value % 3 != 0);
                }
                _ => {
                    paged.insert(number, round);
                    map.insert(number, round);
                }
            }
            assert_eq!(paged.get(number), map.get(&number));
        }
        let mut last = LastPage::default();
        let all: HashMap<u64, u64> = paged.iter().map(|(number, value)| (number, *value)).collect();
        assert_eq!(all, map);
        for number in map.keys().flat_map(|number| [*number, number.wrapping_add(1)]) {
            assert_eq!(paged.get_after(&mut last, number), map.get(&number));
        }
        paged.retain(|_| false);
        assert_eq!((paged.iter().count(), paged.pages.capacity()), (0, 0));
    }
}
