//! One countable resource over all nodes: what each has, what is reserved there, what is free.

/// Amounts by dense node index.
#[derive(Debug, Clone, Default)]
pub(super) struct Column {
    capacity: Vec<u64>,
    // Wider than the amounts: a node that shrank, or absurd specifications, must not overflow the sum.
    reserved: Vec<u128>,
    free: Vec<u64>,
}

impl Column {
    fn grow(&mut self, len: usize) {
        if self.free.len() < len {
            self.capacity.resize(len, 0);
            self.reserved.resize(len, 0);
            self.free.resize(len, 0);
        }
    }

    fn refresh(&mut self, at: usize) {
        let left = u128::from(self.capacity[at]).saturating_sub(self.reserved[at]);
        self.free[at] = u64::try_from(left).unwrap_or(u64::MAX);
    }

    /// The node has so much.
    pub(super) fn set_capacity(&mut self, slot: u32, amount: u64) {
        let at = slot as usize;
        self.grow(at + 1);
        self.capacity[at] = amount;
        self.refresh(at);
    }

    /// So much more is reserved.
    pub(super) fn reserve(&mut self, slot: u32, amount: u64) {
        let at = slot as usize;
        self.grow(at + 1);
        self.reserved[at] += u128::from(amount);
        self.refresh(at);
    }

    /// So much less is reserved.
    pub(super) fn release(&mut self, slot: u32, amount: u64) {
        let at = slot as usize;
        self.grow(at + 1);
        self.reserved[at] = self.reserved[at].saturating_sub(u128::from(amount));
        self.refresh(at);
    }

    /// Forget a node.
    pub(super) fn clear(&mut self, slot: u32) {
        if let Some(reserved) = self.reserved.get_mut(slot as usize) {
            *reserved = 0;
            self.set_capacity(slot, 0);
        }
    }

    /// What is free there.
    pub(super) fn free(&self, at: usize) -> u64 {
        self.free.get(at).copied().unwrap_or_default()
    }
}
