//! A set of identities in bounded memory. Pure.

use super::index::{Index, Slot};
use crate::base::error::Result;
use crate::job::identity::IdentityHash;

/// Each identity takes 16 bytes, so 21 to 32 bytes of the table.
pub(crate) struct Marked(Index);

impl Marked {
    /// The table takes at most `memory` bytes. It has room for `expected` identities from the start, if that allows it.
    pub(crate) fn new(memory: usize, expected: usize) -> Marked {
        let mut index = Index::new(memory);
        index.reserve(expected);
        Marked(index)
    }

    /// # Errors
    /// [`crate::base::error::Error::Failed`] when the table would outgrow its memory.
    pub(crate) fn insert(&mut self, identity: IdentityHash) -> Result<()> {
        self.0.add(Slot::First, identity, 0).map(drop)
    }

    pub(crate) fn holds(&self, identity: IdentityHash) -> bool {
        self.0.get(Slot::First, identity).is_some()
    }
}
