//! A file that the nodes of a map live in, so that they need no memory of their
//! own: the system keeps in memory what is used, and writes the rest out.
//!
//! The file is of this process alone and of no use to the next one: it is made
//! when the first room is asked for, for its owner only (0600), and its name is
//! removed before anything is written. So it goes with the process however that
//! ends, and a map is always made again from what its archive holds: a crash
//! leaves no map behind, right or wrong.
//!
//! Room is allocated on the disk before it is mapped. A full disk is therefore
//! an error of [`MapFile::slab`], not a `SIGBUS` at some later write. Left: a disk
//! that fails to read, and file systems that promise room and do not keep it
//! (copy on write, as btrfs, when full), end the process.
//!
//! This is the one file of the crate with `unsafe` code. Its argument:
//!
//! - *Nobody else changes the bytes.* The file has no name and is shared with no
//!   other process; it never gets shorter, and room is handed out once and never
//!   taken back, so no two slabs overlap.
//! - *A mapping outlives its slabs*: each slab holds the file, which unmaps when
//!   it goes.
//! - *Only what was written is read*: a slab shows its first `filled` items and
//!   no others.
//! - *Any bytes would do*: items are [`Plain`], made of integers alone.

#![allow(unsafe_code)]

use std::ffi::c_void;
use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::AsRawFd as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use super::trie::{Inner, Leaf};

/// Bytes by which a file grows: a quarter of what it has, within these. Multiples
/// of every page size.
const LEAST: usize = 1 << 20;
const MOST: usize = 64 << 20;

/// Every slab begins at a multiple of this.
const ALIGN: usize = 16;

/// Names that are tried for a new file: those that are there are left from a
/// process that was killed between making and removing one, and empty.
const NAMES: u32 = 1000;

/// What may live in a file.
///
/// # Safety
/// Made of integers alone: every pattern of bits is a value of it, and it needs
/// no alignment above [`ALIGN`].
pub(super) unsafe trait Plain: Copy + Send + Sync + 'static {}

// SAFETY: arrays of `u8`, `u32` in wrappers, `u8`.
unsafe impl Plain for Inner {}
// SAFETY: arrays of `u8`, and `u32` in a wrapper.
unsafe impl Plain for Leaf {}
#[cfg(test)]
// SAFETY: an integer.
unsafe impl Plain for u32 {}

/// A file without a name, made in a folder when it is first needed.
#[derive(Debug)]
pub(super) struct MapFile {
    folder: PathBuf,
    grown: Mutex<Grown>,
}

#[derive(Debug, Default)]
struct Grown {
    file: Option<File>,
    regions: Vec<Region>,
    /// Bytes of the last region that are handed out.
    used: usize,
    /// Of the file.
    bytes: usize,
}

/// A part of the file in memory.
#[derive(Debug)]
struct Region {
    start: NonNull<u8>,
    bytes: usize,
}

impl MapFile {
    pub(super) fn new(folder: PathBuf) -> MapFile {
        MapFile { folder, grown: Mutex::new(Grown::default()) }
    }

    /// Bytes that the file takes on the disk.
    pub(super) fn bytes(&self) -> usize {
        self.grown.lock().unwrap_or_else(PoisonError::into_inner).bytes
    }

    /// Room for `room` items, which is on the disk already.
    ///
    /// # Errors
    /// The file cannot be made, or the disk is full; nothing has changed then.
    pub(super) fn slab<T: Plain>(self: &Arc<MapFile>, room: usize) -> io::Result<Slab<T>> {
        const { assert!(align_of::<T>() <= ALIGN && size_of::<T>() > 0) }
        let bytes = room.checked_mul(size_of::<T>()).filter(|&bytes| bytes <= LEAST);
        let bytes = bytes.ok_or(io::ErrorKind::InvalidInput)?.next_multiple_of(ALIGN);
        let mut grown = self.grown.lock().unwrap_or_else(PoisonError::into_inner);
        if grown.regions.last().is_none_or(|last| last.bytes - grown.used < bytes) {
            grown.grow(&self.folder)?;
        }
        let last = grown.regions.last().ok_or(io::ErrorKind::OutOfMemory)?;
        // SAFETY: `used + bytes` is at most `last.bytes`, so it stays in the region.
        let items = unsafe { last.start.add(grown.used) }.cast();
        grown.used += bytes;
        Ok(Slab { items, room, filled: 0, file: Arc::clone(self) })
    }
}

impl Grown {
    /// One region more. What is left of the last one stays unused.
    fn grow(&mut self, folder: &Path) -> io::Result<()> {
        if self.file.is_none() {
            self.file = Some(nameless(folder)?);
        }
        let Some(file) = &self.file else { return Err(io::ErrorKind::NotFound.into()) };
        let more = (self.bytes / 4).clamp(LEAST, MOST) / LEAST * LEAST;
        allocate(file, self.bytes, more)?;
        // A mapping that fails leaves the file longer, and the same room is
        // asked for again.
        let region = Region::new(file, self.bytes, more)?;
        self.regions.push(region);
        self.used = 0;
        self.bytes += more;
        Ok(())
    }
}

/// A new file for its owner alone, whose name is gone.
fn nameless(folder: &Path) -> io::Result<File> {
    static NUMBER: AtomicU32 = AtomicU32::new(0);
    let mut options = OpenOptions::new();
    options.read(true).write(true).create_new(true).mode(0o600);
    for _ in 0..NAMES {
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let path = folder.join(format!("map-{}-{number}", std::process::id()));
        match options.open(&path) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => continue,
            opened => {
                let file = opened?;
                std::fs::remove_file(&path)?;
                return Ok(file);
            }
        }
    }
    Err(io::ErrorKind::AlreadyExists.into())
}

/// Has the disk hold `more` bytes after the first `bytes`.
fn allocate(file: &File, bytes: usize, more: usize) -> io::Result<()> {
    let range = libc::off_t::try_from(bytes).ok().zip(libc::off_t::try_from(more).ok());
    let (offset, length) = range.ok_or(io::ErrorKind::FileTooLarge)?;
    loop {
        // SAFETY: no memory is passed, and the descriptor is open as long as `file`.
        match unsafe { libc::posix_fallocate(file.as_raw_fd(), offset, length) } {
            0 => return Ok(()),
            libc::EINTR => {}
            error => return Err(io::Error::from_raw_os_error(error)),
        }
    }
}

impl Region {
    /// Maps `bytes` of the file from `offset` on, both multiples of the page.
    fn new(file: &File, offset: usize, bytes: usize) -> io::Result<Region> {
        let offset = libc::off_t::try_from(offset).map_err(|_| io::ErrorKind::FileTooLarge)?;
        let (access, fd) = (libc::PROT_READ | libc::PROT_WRITE, file.as_raw_fd());
        // SAFETY: a new mapping at a place that the system chooses touches no
        // memory that is in use. The file has these bytes and never gets shorter.
        let start = unsafe {
            libc::mmap(std::ptr::null_mut(), bytes, access, libc::MAP_SHARED, fd, offset)
        };
        if start == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: this range was just mapped. Labels are spread evenly, so that
        // reading ahead reads what nobody wants; advice that fails changes nothing.
        unsafe { libc::madvise(start, bytes, libc::MADV_RANDOM) };
        let start = NonNull::new(start.cast()).ok_or(io::ErrorKind::OutOfMemory)?;
        Ok(Region { start, bytes })
    }
}

impl Drop for Region {
    fn drop(&mut self) {
        // SAFETY: mapped by `Region::new` with this length and not yet unmapped.
        // Nobody points into it: slabs hold the file that holds this region.
        unsafe { libc::munmap(self.start.as_ptr().cast::<c_void>(), self.bytes) };
    }
}

// SAFETY: owned memory that no thread has a tie to, as a `Box` is.
unsafe impl Send for Region {}
// SAFETY: through `&Region` nothing is read or written.
unsafe impl Sync for Region {}

/// Room for so many items in a file: a vector that does not grow.
#[derive(Debug)]
pub(super) struct Slab<T> {
    /// The first of `room` items, in a region of `file`.
    items: NonNull<T>,
    room: usize,
    /// Items written, at most `room`.
    filled: usize,
    /// Keeps the region mapped.
    #[allow(dead_code, reason = "held, not read")]
    file: Arc<MapFile>,
}

impl<T: Plain> Slab<T> {
    #[inline]
    pub(super) fn as_slice(&self) -> &[T] {
        // SAFETY: the first `filled` items are written and of this slab alone;
        // they change only through `&mut self`.
        unsafe { std::slice::from_raw_parts(self.items.as_ptr(), self.filled) }
    }

    #[inline]
    pub(super) fn as_mut_slice(&mut self) -> &mut [T] {
        // SAFETY: as above, and `&mut self` is the only way to them.
        unsafe { std::slice::from_raw_parts_mut(self.items.as_ptr(), self.filled) }
    }

    /// Whether there was room.
    pub(super) fn push(&mut self, item: T) -> bool {
        if self.filled == self.room {
            return false;
        }
        // SAFETY: `filled` is below `room`: in this slab's part of the mapping,
        // and aligned, since the slab and the size of `T` are.
        unsafe { self.items.add(self.filled).write(item) };
        self.filled += 1;
        true
    }

    /// Drops the items from `filled` on; the room stays.
    pub(super) fn truncate(&mut self, filled: usize) {
        self.filled = self.filled.min(filled);
    }
}

// SAFETY: as `Vec<T>`: the slab owns its items, which are plain.
unsafe impl<T: Plain> Send for Slab<T> {}
// SAFETY: `&Slab` gives `&T` and nothing more.
unsafe impl<T: Plain> Sync for Slab<T> {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slabs_share_a_file_that_nobody_sees() {
        let folder = tempfile::tempdir().unwrap();
        let file = Arc::new(MapFile::new(folder.path().into()));
        assert_eq!(file.bytes(), 0);
        // Left by a process that was killed: in the way, and harmless.
        let number = (0..20).map(|n| format!("map-{}-{n}", std::process::id()));
        number.for_each(|name| std::fs::write(folder.path().join(name), "").unwrap());
        let mut slabs: Vec<Slab<u32>> = (0..3000).map(|_| file.slab(250).unwrap()).collect();
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 20);
        assert!(file.bytes() >= 3_000_000 && file.bytes().is_multiple_of(LEAST));
        for (number, slab) in (0..).zip(&mut slabs) {
            assert!(slab.as_slice().is_empty());
            (0..250).for_each(|item| assert!(slab.push(number * 1000 + item)));
            assert!(!slab.push(7));
        }
        drop(file);
        for (number, slab) in (0..).zip(&mut slabs) {
            assert!(slab.as_slice().iter().copied().eq(number * 1000..number * 1000 + 250));
            slab.as_mut_slice()[9] = 1;
            slab.truncate(10);
            slab.truncate(20);
            assert_eq!((slab.as_slice().len(), slab.as_slice()[9]), (10, 1));
            assert!(slab.push(8));
        }
    }
}
