//! The subscriptions of a session, small while they are few.

use std::ops::Deref;

use super::session::SubRef;

/// Held without an allocation: most sessions have one or two.
const FEW: usize = 2;

/// Lives on: home shard. In no order.
#[derive(Debug)]
pub(crate) enum SubList {
    /// The first so many.
    Few(u8, [SubRef; FEW]),
    /// Any number.
    Many(Box<Vec<SubRef>>),
}

const _: () = assert!(size_of::<SubList>() == 16);

impl Default for SubList {
    fn default() -> Self {
        Self::Few(0, [SubRef(0); FEW])
    }
}

impl Deref for SubList {
    type Target = [SubRef];
    fn deref(&self) -> &[SubRef] {
        match self {
            Self::Few(n, list) => &list[..usize::from(*n)],
            Self::Many(list) => list,
        }
    }
}

impl SubList {
    pub(crate) fn push(&mut self, sub: SubRef) {
        match self {
            Self::Few(n, list) if usize::from(*n) < FEW => {
                list[usize::from(*n)] = sub;
                *n += 1;
            }
            Self::Few(_, list) => {
                let mut many = Vec::with_capacity(2 * FEW);
                many.extend_from_slice(list);
                many.push(sub);
                *self = Self::Many(Box::new(many));
            }
            Self::Many(list) => list.push(sub),
        }
    }

    /// Takes the entry at a position; the last one takes its place.
    pub(crate) fn swap_remove(&mut self, at: usize) {
        match self {
            Self::Few(n, list) => {
                debug_assert!(at < usize::from(*n));
                *n -= 1;
                list[at] = list[usize::from(*n)];
            }
            Self::Many(list) => {
                list.swap_remove(at);
                if list.len() * 4 < list.capacity() {
                    list.shrink_to(list.len() * 2);
                }
            }
        }
        if self.is_empty() {
            *self = Self::default();
        }
    }

    /// Takes an entry out, wherever it is.
    pub(crate) fn remove(&mut self, sub: SubRef) {
        if let Some(at) = self.iter().position(|s| *s == sub) {
            self.swap_remove(at);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn holds_what_was_pushed_and_not_removed_however_many() {
        for count in 0..20u32 {
            let mut list = SubList::default();
            (0..count).for_each(|i| list.push(SubRef(i)));
            (0..count).step_by(3).for_each(|i| list.remove(SubRef(i)));
            let mut left: Vec<u32> = list.iter().map(|s| s.0).collect();
            left.sort_unstable();
            assert!(left.into_iter().eq((0..count).filter(|i| i % 3 != 0)));
        }
    }
}
