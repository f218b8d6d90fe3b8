//! A growing array in chunks: it never moves what it holds, so growth leaves
//! no copies behind, and at most a part of one chunk is unused. The chunks are in
//! memory or in a [`MapFile`].

use std::io;
use std::sync::Arc;

use super::mapped::{MapFile, Plain, Slab};

/// Items a chunk; a power of two.
const CHUNK: usize = 256;

/// Room that a chunk in memory starts with; it doubles up to [`CHUNK`].
const FIRST: usize = 16;

#[derive(Debug)]
pub(super) struct Arena<T> {
    /// In memory, all full but the last that is not empty. In a file there may be
    /// empty ones behind that: room that was made, or is used again.
    chunks: Vec<Chunk<T>>,
    len: usize,
    /// Where chunks are made; in memory if there is none.
    file: Option<Arc<MapFile>>,
}

#[derive(Debug)]
enum Chunk<T> {
    Memory(Vec<T>),
    Mapped(Slab<T>),
}

impl<T: Plain> Chunk<T> {
    #[inline]
    fn items(&self) -> &[T] {
        match self {
            Chunk::Memory(items) => items,
            Chunk::Mapped(slab) => slab.as_slice(),
        }
    }

    #[inline]
    fn items_mut(&mut self) -> &mut [T] {
        match self {
            Chunk::Memory(items) => items,
            Chunk::Mapped(slab) => slab.as_mut_slice(),
        }
    }

    fn push(&mut self, item: T) {
        match self {
            Chunk::Memory(items) => items.push(item),
            Chunk::Mapped(slab) => assert!(slab.push(item), "a chunk has room up to its end"),
        }
    }

    fn truncate(&mut self, len: usize) {
        match self {
            Chunk::Memory(items) => items.truncate(len),
            Chunk::Mapped(slab) => slab.truncate(len),
        }
    }
}

impl<T: Plain> Arena<T> {
    pub(super) fn new(file: Option<Arc<MapFile>>) -> Arena<T> {
        Arena { chunks: Vec::new(), len: 0, file }
    }

    /// Room for `len` items, exactly so in memory.
    ///
    /// # Errors
    /// Those of [`MapFile::slab`].
    pub(super) fn with_capacity(file: Option<Arc<MapFile>>, len: usize) -> io::Result<Arena<T>> {
        let mut arena = Arena::new(file);
        if arena.file.is_some() {
            arena.reserve(len)?;
            return Ok(arena);
        }
        let room = |chunk: usize| Vec::with_capacity((len - chunk * CHUNK).min(CHUNK));
        arena.chunks = (0..len.div_ceil(CHUNK)).map(|chunk| Chunk::Memory(room(chunk))).collect();
        Ok(arena)
    }

    /// Makes room for `more` items in the file, if there is one.
    ///
    /// # Errors
    /// Those of [`MapFile::slab`]; what is there stays as it is.
    pub(super) fn reserve(&mut self, more: usize) -> io::Result<()> {
        let Some(file) = &self.file else { return Ok(()) };
        while self.chunks.len() * CHUNK < self.len + more {
            self.chunks.push(Chunk::Mapped(file.slab(CHUNK)?));
        }
        Ok(())
    }

    pub(super) fn len(&self) -> usize {
        self.len
    }

    #[inline]
    pub(super) fn at(&self, index: u32) -> &T {
        &self.chunks[index as usize / CHUNK].items()[index as usize % CHUNK]
    }

    #[inline]
    pub(super) fn at_mut(&mut self, index: u32) -> &mut T {
        &mut self.chunks[index as usize / CHUNK].items_mut()[index as usize % CHUNK]
    }

    /// Adds an item and gives its index. The caller keeps the length in 32 bits,
    /// and has reserved the room: without it, a chunk in memory is begun.
    pub(super) fn push(&mut self, item: T) -> u32 {
        let index = self.len;
        if index / CHUNK == self.chunks.len() {
            self.chunks.push(Chunk::Memory(Vec::with_capacity(FIRST)));
        }
        self.chunks[index / CHUNK].push(item);
        self.len += 1;
        index as u32
    }

    /// Drops the items from `len` on. Room in a file is kept for what comes.
    pub(super) fn truncate(&mut self, len: usize) {
        let kept = len.div_ceil(CHUNK);
        if self.file.is_none() {
            self.chunks.truncate(kept);
        }
        self.chunks.iter_mut().skip(kept).for_each(|chunk| chunk.truncate(0));
        if let Some(last) = kept.checked_sub(1).and_then(|last| self.chunks.get_mut(last)) {
            last.truncate(len - (kept - 1) * CHUNK);
        }
        self.len = self.len.min(len);
    }

    /// Bytes of memory allocated, unused room included.
    pub(super) fn bytes(&self) -> usize {
        let room = |chunk: &Chunk<T>| match chunk {
            Chunk::Memory(items) => items.capacity(),
            Chunk::Mapped(_) => 0,
        };
        let items: usize = self.chunks.iter().map(room).sum();
        items * size_of::<T>() + self.chunks.capacity() * size_of::<Chunk<T>>()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keeps_items(mut arena: Arena<u32>) {
        for item in 0..1000u32 {
            arena.reserve(1).unwrap();
            assert_eq!(arena.push(item), item);
        }
        for keep in [1000, 769, 768, 767, 256, 255, 1, 0] {
            arena.truncate(keep);
            assert_eq!(arena.len(), keep);
            (0..keep as u32).for_each(|item| assert_eq!(*arena.at(item), item));
        }
        arena.reserve(400).unwrap();
        for item in 0..400 {
            assert_eq!(arena.push(item + 7), item);
            *arena.at_mut(item) += 1;
        }
        (0..400).for_each(|item| assert_eq!(*arena.at(item), item + 8));
    }

    #[test]
    fn keeps_items_over_growth_and_truncation() {
        for room in [0, 1, 255, 256, 257, 700] {
            keeps_items(Arena::with_capacity(None, room).unwrap());
            let file = Arc::new(MapFile::new(std::env::temp_dir()));
            keeps_items(Arena::with_capacity(Some(file.clone()), room).unwrap());
            // Once for all, whatever came and went: a thousand items are four chunks.
            assert_eq!(file.bytes(), 1 << 20);
        }
    }
}
