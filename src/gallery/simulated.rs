//! A disk for tests: it counts calls, fails at any of them, and after a power cut keeps of what was not synced what it likes.

use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Mutex};

use super::medium::Medium;

/// How a call fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    /// No space left on the device.
    Full,
    /// An I/O error.
    Broken,
    /// A file system that was remounted read-only.
    ReadOnly,
    /// Half of a write, then no space.
    Short,
}

impl Fault {
    /// Each of them.
    pub(crate) const ALL: [Self; 4] = [Self::Full, Self::Broken, Self::ReadOnly, Self::Short];
}

#[derive(Clone, Default)]
struct Inode {
    now: Vec<u8>,
    durable: Vec<u8>,
}

impl Inode {
    fn overwrite(&mut self, bytes: usize) {
        let bytes = bytes.min(self.now.len());
        self.now[..bytes].fill(0);
        self.durable = self.now.clone();
    }
}

#[derive(Clone, Default)]
struct Disk {
    inodes: Vec<Inode>,
    names: BTreeMap<String, usize>,
    durable_names: BTreeMap<String, usize>,
    replaced: Vec<usize>,
    calls: usize,
    /// How many bytes of each file were read.
    read: BTreeMap<String, usize>,
    fault: Option<(usize, Fault)>,
    /// Whether every call from then on fails, or that one alone.
    goes_on: bool,
    /// A file that cannot be written.
    refused: Option<String>,
    cut_at: Option<usize>,
}

/// A handle on the disk.
#[derive(Clone, Default)]
pub(crate) struct Simulated(Arc<Mutex<Disk>>);

impl Simulated {
    /// How many calls were made, reads among them.
    pub(crate) fn calls(&self) -> usize {
        self.0.lock().unwrap().calls
    }

    /// How many bytes of a file were read so far.
    pub(crate) fn bytes_read(&self, name: &str) -> usize {
        self.0.lock().unwrap().read.get(name).copied().unwrap_or(0)
    }

    /// Makes the call number `at` (from 0) fail once.
    pub(crate) fn fail(&self, at: usize, fault: Fault) {
        let mut disk = self.0.lock().unwrap();
        (disk.fault, disk.goes_on) = (Some((at, fault)), false);
    }

    /// Makes every call from number `at` on fail, until [`Simulated::mend`].
    pub(crate) fn fail_from(&self, at: usize, fault: Fault) {
        let mut disk = self.0.lock().unwrap();
        (disk.fault, disk.goes_on) = (Some((at, fault)), true);
    }

    /// Makes every write of one file fail, until [`Simulated::mend`].
    pub(crate) fn refuse(&self, name: &str) {
        self.0.lock().unwrap().refused = Some(name.to_owned());
    }

    /// From now on nothing fails.
    pub(crate) fn mend(&self) {
        let mut disk = self.0.lock().unwrap();
        (disk.fault, disk.refused) = (None, None);
    }

    /// Makes every call from number `at` on fail without effect: the power is about to go.
    pub(crate) fn cut(&self, at: usize) {
        self.0.lock().unwrap().cut_at = Some(at);
    }

    /// The disk as another process sees it, with no fault pending.
    pub(crate) fn reopened(&self) -> Self {
        let disk = self.0.lock().unwrap();
        Self(Arc::new(Mutex::new(Disk {
            calls: 0,
            read: BTreeMap::new(),
            fault: None,
            goes_on: false,
            refused: None,
            cut_at: None,
            ..disk.clone()
        })))
    }

    /// The disk after a power cut: each name and each file that was not synced is old, new or torn, as `seed` has it.
    pub(crate) fn after_power_cut(&self, seed: u64) -> Self {
        let mut random = fastrand::Rng::with_seed(seed);
        let disk = self.0.lock().unwrap().clone();
        let mut next = Disk::default();
        let all: std::collections::BTreeSet<_> = disk.names.keys().chain(disk.durable_names.keys()).cloned().collect();
        for name in all {
            let view = if random.bool() { &disk.names } else { &disk.durable_names };
            let Some(&inode) = view.get(&name) else { continue };
            let Inode { now, durable } = &disk.inodes[inode];
            let content = match random.u8(..3) {
                _ if now == durable => durable.clone(),
                0 => durable.clone(),
                1 => now.clone(),
                _ => torn(durable, now, &mut random),
            };
            next.inodes.push(Inode { now: content.clone(), durable: content });
            next.names.insert(name.clone(), next.inodes.len() - 1);
        }
        next.durable_names = next.names.clone();
        Self(Arc::new(Mutex::new(next)))
    }

    /// The content of every file that ever was, named or not: what a look at the bare disk shows.
    pub(crate) fn remains(&self) -> Vec<Vec<u8>> {
        let disk = self.0.lock().unwrap();
        disk.inodes.iter().flat_map(|inode| [inode.now.clone(), inode.durable.clone()]).collect()
    }

    /// Every file's name and content.
    pub(crate) fn files(&self) -> BTreeMap<String, Vec<u8>> {
        let disk = self.0.lock().unwrap();
        disk.names.iter().map(|(name, &inode)| (name.clone(), disk.inodes[inode].now.clone())).collect()
    }

    /// Puts a file there, durably.
    pub(crate) fn put(&self, name: &str, bytes: &[u8]) {
        self.write(name, 0, bytes).unwrap();
        self.sync(name).unwrap();
        self.sync_folder().unwrap();
    }

    fn change(&self, act: impl FnOnce(&mut Disk, bool) -> io::Result<()>) -> io::Result<()> {
        let mut disk = self.0.lock().unwrap();
        match disk.count()? {
            None => act(&mut disk, false),
            Some(Fault::Full) => Err(io::Error::from_raw_os_error(28)),
            Some(Fault::Broken) => Err(io::Error::from_raw_os_error(5)),
            Some(Fault::ReadOnly) => Err(io::Error::from_raw_os_error(30)),
            Some(Fault::Short) => {
                act(&mut disk, true)?;
                Err(io::Error::from_raw_os_error(28))
            }
        }
    }
}

impl Disk {
    /// One more call: how it fails, if it does.
    fn count(&mut self) -> io::Result<Option<Fault>> {
        let number = self.calls;
        self.calls += 1;
        if self.cut_at.is_some_and(|at| number >= at) {
            return Err(io::Error::from_raw_os_error(5));
        }
        let is_hit = |at: usize| if self.goes_on { number >= at } else { number == at };
        Ok(self.fault.filter(|(at, _)| is_hit(*at)).map(|(_, fault)| fault))
    }
}

/// Some blocks of what was not synced arrived and some did not; what both states share stays.
fn torn(durable: &[u8], now: &[u8], random: &mut fastrand::Rng) -> Vec<u8> {
    const BLOCK: usize = 64;
    let (short, long) = (durable.len().min(now.len()), durable.len().max(now.len()));
    let mut torn = vec![0; random.usize(short..=long)];
    let length = torn.len();
    for (number, block) in torn.chunks_mut(BLOCK).enumerate() {
        let from = if random.bool() { durable } else { now };
        let arrived = from.get(number * BLOCK..length.min(from.len())).unwrap_or_default();
        let arrived = &arrived[..arrived.len().min(block.len())];
        block[..arrived.len()].copy_from_slice(arrived);
    }
    torn
}

fn missing() -> io::Error {
    io::Error::from_raw_os_error(2)
}

impl Medium for Simulated {
    fn read(&self, name: &str) -> io::Result<Vec<u8>> {
        self.read_head(name, usize::MAX)
    }

    fn read_head(&self, name: &str, most: usize) -> io::Result<Vec<u8>> {
        let mut disk = self.0.lock().unwrap();
        if disk.count()?.is_some() {
            // However a disk fails, what a reader hears is that it cannot be read.
            return Err(io::Error::from_raw_os_error(5));
        }
        let inode = *disk.names.get(name).ok_or_else(missing)?;
        let now = &disk.inodes[inode].now;
        let bytes = now[..now.len().min(most)].to_vec();
        *disk.read.entry(name.to_owned()).or_default() += bytes.len();
        Ok(bytes)
    }

    fn write(&self, name: &str, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.change(|disk, short| {
            if disk.refused.as_deref() == Some(name) {
                return Err(io::Error::from_raw_os_error(5));
            }
            let offset = usize::try_from(offset).unwrap();
            if offset == 0 && !disk.names.contains_key(name) {
                disk.inodes.push(Inode::default());
                let inode = disk.inodes.len() - 1;
                disk.names.insert(name.to_owned(), inode);
            }
            let inode = *disk.names.get(name).ok_or_else(missing)?;
            let bytes = if short { &bytes[..bytes.len() / 2] } else { bytes };
            let now = &mut disk.inodes[inode].now;
            if offset == 0 {
                now.clear();
            }
            now.resize(now.len().max(offset + bytes.len()), 0);
            now[offset..offset + bytes.len()].copy_from_slice(bytes);
            Ok(())
        })
    }

    fn sync(&self, name: &str) -> io::Result<()> {
        self.change(|disk, short| {
            let inode = *disk.names.get(name).ok_or_else(missing)?;
            let inode = &mut disk.inodes[inode];
            if !short {
                inode.durable = inode.now.clone();
            }
            Ok(())
        })
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        self.change(|disk, short| {
            // A rename is whole or not at all.
            if !short {
                let inode = disk.names.remove(from).ok_or_else(missing)?;
                let before = disk.names.insert(to.to_owned(), inode);
                disk.replaced.extend(before);
            }
            Ok(())
        })
    }

    fn shred(&self, bytes: usize) -> io::Result<()> {
        self.change(|disk, _| {
            for inode in std::mem::take(&mut disk.replaced) {
                disk.inodes[inode].overwrite(bytes);
            }
            Ok(())
        })
    }

    fn truncate(&self, name: &str, length: u64) -> io::Result<()> {
        self.change(|disk, short| {
            let inode = *disk.names.get(name).ok_or_else(missing)?;
            if !short {
                disk.inodes[inode].now.truncate(usize::try_from(length).unwrap());
            }
            Ok(())
        })
    }

    fn sync_folder(&self) -> io::Result<()> {
        self.change(|disk, short| {
            if !short {
                disk.durable_names = disk.names.clone();
            }
            Ok(())
        })
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        self.change(|disk, _| disk.names.remove(name).map(|_| ()).ok_or_else(missing))
    }

    fn destroy(&self, name: &str, bytes: usize) -> io::Result<()> {
        self.change(|disk, short| {
            let inode = disk.names.remove(name).ok_or_else(missing)?;
            if !short {
                disk.inodes[inode].overwrite(bytes);
            }
            Ok(())
        })
    }
}
