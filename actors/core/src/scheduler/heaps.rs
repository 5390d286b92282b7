//! Many small min-heaps in one vector: one for each branch of a spread tree.

/// Let the first element of a min-heap sink to where it belongs.
fn sink<T: Ord + Copy>(heap: &mut [T], mut at: usize) {
    let Some(&moving) = heap.get(at) else { return };
    loop {
        let mut child = 2 * at + 1;
        if child + 1 < heap.len() && heap[child + 1] < heap[child] {
            child += 1;
        }
        if child >= heap.len() || heap[child] >= moving {
            break;
        }
        heap[at] = heap[child];
        at = child;
    }
    heap[at] = moving;
}

/// Many small heaps in one vector, one for each branch.
#[derive(Debug, Default)]
pub(super) struct Heaps<T> {
    entries: Vec<T>,
    starts: Vec<u32>,
    rooms: Vec<u32>,
    lens: Vec<u32>,
}

impl<T: Ord + Copy> Heaps<T> {
    /// Heaps for these branches with room for so many entries each.
    pub(super) fn with_room(rooms: Vec<u32>, filler: T) -> Self {
        let mut starts = Vec::with_capacity(rooms.len());
        let mut total = 0;
        for len in &rooms {
            starts.push(total);
            total += len;
        }
        Self { entries: vec![filler; total as usize], starts, lens: vec![0; rooms.len()], rooms }
    }

    /// Add an entry, not yet in order: see [`Self::order`].
    pub(super) fn push(&mut self, branch: usize, entry: T) {
        self.entries[(self.starts[branch] + self.lens[branch]) as usize] = entry;
        self.lens[branch] += 1;
    }

    /// Keep only the `count` least of a branch if it is full. Returns the greatest that was kept.
    pub(super) fn cut(&mut self, branch: usize, count: usize) -> Option<T> {
        let (room, start) = (self.rooms[branch], self.starts[branch] as usize);
        if self.lens[branch] < room || self.lens[branch] as usize <= count || count == 0 {
            return None;
        }
        let all = &mut self.entries[start..start + room as usize];
        let (_, greatest, _) = all.select_nth_unstable(count - 1);
        self.lens[branch] = u32::try_from(count).unwrap_or(u32::MAX);
        Some(*greatest)
    }

    /// Make a branch's entries a heap.
    pub(super) fn order(&mut self, branch: usize) {
        let heap = self.slice(branch);
        for at in (0..heap.len() / 2).rev() {
            sink(heap, at);
        }
    }

    fn slice(&mut self, branch: usize) -> &mut [T] {
        let start = self.starts[branch] as usize;
        &mut self.entries[start..start + self.lens[branch] as usize]
    }

    /// The least of a branch.
    pub(super) fn top(&self, branch: usize) -> Option<T> {
        (self.lens[branch] > 0).then(|| self.entries[self.starts[branch] as usize])
    }

    /// Put `entry` in the place of the first, or take the first out.
    pub(super) fn replace_top(&mut self, branch: usize, entry: Option<T>) {
        let heap = self.slice(branch);
        match (entry, heap) {
            (Some(entry), [first, ..]) => *first = entry,
            (None, [first, .., last]) => {
                *first = *last;
                self.lens[branch] -= 1;
            }
            (None, [_]) => self.lens[branch] = 0,
            (_, []) => return,
        }
        sink(self.slice(branch), 0);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_heap_gives_its_least_entries_in_order(mut keys: Vec<u64>, count in 1usize..20) {
            let room = u32::try_from(keys.len()).expect("small");
            let mut heaps = Heaps::with_room(vec![3, room], 0);
            keys.iter().for_each(|key| heaps.push(1, *key));
            heaps.cut(1, count);
            heaps.order(1);
            keys.sort_unstable();
            for key in keys.iter().take(count) {
                prop_assert_eq!(heaps.top(1), Some(*key));
                heaps.replace_top(1, None);
            }
            prop_assert_eq!(heaps.top(0), None);
        }
    }
}
