//! A growing array in chunks: it never moves what it holds, so growth leaves
//! no copies behind, and at most a part of one chunk is unused.

/// Items a chunk; a power of two.
const CHUNK: usize = 256;

/// Room that a chunk starts with; it doubles up to [`CHUNK`].
const FIRST: usize = 16;

#[derive(Debug)]
pub(super) struct Arena<T> {
    /// All full but the last that is not empty.
    chunks: Vec<Vec<T>>,
    len: usize,
}

impl<T: Copy> Arena<T> {
    /// Room for `len` items, exactly.
    pub(super) fn with_capacity(len: usize) -> Arena<T> {
        let room = |chunk: usize| Vec::with_capacity((len - chunk * CHUNK).min(CHUNK));
        Arena { chunks: (0..len.div_ceil(CHUNK)).map(room).collect(), len: 0 }
    }

    pub(super) fn len(&self) -> usize {
        self.len
    }

    #[inline]
    pub(super) fn at(&self, index: u32) -> &T {
        &self.chunks[index as usize / CHUNK][index as usize % CHUNK]
    }

    #[inline]
    pub(super) fn at_mut(&mut self, index: u32) -> &mut T {
        &mut self.chunks[index as usize / CHUNK][index as usize % CHUNK]
    }

    /// Adds an item and gives its index. The caller keeps the length in 32 bits.
    pub(super) fn push(&mut self, item: T) -> u32 {
        let index = self.len;
        if index / CHUNK == self.chunks.len() {
            self.chunks.push(Vec::with_capacity(FIRST));
        }
        self.chunks[index / CHUNK].push(item);
        self.len += 1;
        index as u32
    }

    /// Drops the items from `len` on.
    pub(super) fn truncate(&mut self, len: usize) {
        self.chunks.truncate(len.div_ceil(CHUNK));
        if let Some(last) = self.chunks.last_mut() {
            last.truncate(len - len.saturating_sub(1) / CHUNK * CHUNK);
        }
        self.len = self.len.min(len);
    }

    /// Bytes allocated, unused room included.
    pub(super) fn bytes(&self) -> usize {
        let items: usize = self.chunks.iter().map(Vec::capacity).sum();
        items * size_of::<T>() + self.chunks.capacity() * size_of::<Vec<T>>()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keeps_items_over_growth_and_truncation() {
        for room in [0, 1, 255, 256, 257, 700] {
            let mut arena = Arena::with_capacity(room);
            for item in 0..1000u32 {
                assert_eq!(arena.push(item), item);
            }
            for keep in [1000, 769, 768, 767, 256, 255, 1, 0] {
                arena.truncate(keep);
                assert_eq!(arena.len(), keep);
                (0..keep as u32).for_each(|item| assert_eq!(*arena.at(item), item));
            }
            assert_eq!(arena.push(7), 0);
            *arena.at_mut(0) = 8;
            assert_eq!(*arena.at(0), 8);
        }
    }
}
