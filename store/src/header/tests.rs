use std::ops::Range;

use bytes::Bytes;
use tsdb::{BlockOptions, Index, IndexMemory, Workload};

use super::*;

/// An index that counts the bytes that are read of it.
struct Counted(Bytes, AtomicU64);

impl ReadAt for Counted {
    fn size_bytes(&self) -> u64 {
        self.0.size_bytes()
    }

    fn read_at(&self, range: Range<u64>) -> io::Result<Bytes> {
        self.1.fetch_add(range.end - range.start, Ordering::Relaxed);
        self.0.read_at(range)
    }
}

fn index_of(series: u64, number: u64) -> (Ulid, Arc<dyn ReadAt>, Arc<Counted>) {
    let dir = tempfile::tempdir().unwrap();
    let workload = Workload { series, interval: std::time::Duration::from_secs(3600), ..Workload::default() };
    let id = Ulid::from_parts(number, 1);
    let meta = workload.write(dir.path(), BlockOptions::new(id), &mut |_| {}).unwrap();
    let bytes = fs::read(dir.path().join(meta.ulid.to_string()).join("index")).unwrap();
    let counted = Arc::new(Counted(Bytes::from(bytes), AtomicU64::new(0)));
    (id, Arc::clone(&counted) as Arc<dyn ReadAt>, counted)
}

fn values(block: Ulid, index: Arc<dyn ReadAt>) -> Vec<String> {
    let index = Index::open(block, index, IndexMemory::SAMPLED).unwrap();
    index.label_values("pod").unwrap()
}

#[test]
fn lookups_read_the_header_and_not_the_bucket_also_after_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let (block, index, counted) = index_of(2_000, 1);
    let expected = values(block, Arc::clone(&index));
    let folder = HeaderFolder::open(dir.path(), 1 << 30).unwrap();
    counted.1.store(0, Ordering::Relaxed);
    let headered = folder.index(block, Arc::clone(&index), &index).unwrap();
    let built = counted.1.swap(0, Ordering::Relaxed);
    assert!(built < index.size_bytes() / 2, "{built} of {} bytes were read", index.size_bytes());
    assert_eq!(values(block, headered), expected);
    let folder = HeaderFolder::open(dir.path(), 1 << 30).unwrap();
    assert_eq!(values(block, folder.index(block, Arc::clone(&index), &index).unwrap()), expected);
    assert_eq!(counted.1.load(Ordering::Relaxed), 0, "bytes of the bucket");
    let header = folder.index(block, Arc::clone(&index), &index).unwrap();
    for range in [0..5, 0..100, 3..9, index.size_bytes() - 60..index.size_bytes(), 5..6] {
        assert_eq!(
            header.read_at(range.clone()).unwrap(),
            index.read_at(range.clone()).unwrap(),
            "{range:?}"
        );
    }
    let ranges = [0..3, 200..300, index.size_bytes() - 9..index.size_bytes()];
    assert_eq!(header.read_many(&ranges).unwrap(), index.read_many(&ranges).unwrap());
}

#[test]
fn a_header_that_is_not_whole_is_built_again() {
    let dir = tempfile::tempdir().unwrap();
    let (block, index, _) = index_of(500, 1);
    let (_, other, _) = index_of(700, 1);
    let expected = values(block, Arc::clone(&index));
    let folder = HeaderFolder::open(dir.path(), 1 << 30).unwrap();
    let read = || values(block, folder.index(block, Arc::clone(&index), &index).unwrap());
    assert_eq!(read(), expected);
    let path = folder.path(block);
    let sound = fs::read(&path).unwrap();
    let mut damaged: Vec<Vec<u8>> = [0, 3, 14, 33, sound.len() - 1].map(|n| sound[..n].to_vec()).to_vec();
    for at in [0, 4, 5, 7, sound.len() - 20, sound.len() - 9, sound.len() - 1] {
        let mut bytes = sound.clone();
        bytes[at] ^= 1;
        damaged.push(bytes);
    }
    for bytes in damaged {
        fs::write(&path, bytes).unwrap();
        assert_eq!(read(), expected);
        assert!(fs::read(&path).unwrap() == sound, "the header was not built again");
    }
    // The header of another index with the same name.
    let elsewhere = tempfile::tempdir().unwrap();
    let folder_of_other = HeaderFolder::open(elsewhere.path(), 1 << 30).unwrap();
    folder_of_other.index(block, Arc::clone(&other), &other).unwrap();
    fs::copy(folder_of_other.path(block), &path).unwrap();
    assert_eq!(read(), expected);
}

#[test]
fn headers_that_were_not_used_for_long_make_room() {
    let dir = tempfile::tempdir().unwrap();
    let indexes: Vec<_> = (1..=4).map(|number| index_of(300, number)).collect();
    let folder = HeaderFolder::open(dir.path(), u64::MAX).unwrap();
    let used = |folder: &HeaderFolder, at: usize| {
        let (block, index, _) = &indexes[at];
        folder.index(*block, Arc::clone(index), index).unwrap();
    };
    used(&folder, 0);
    let one = folder.size_bytes();
    let folder = HeaderFolder::open(dir.path(), one * 5 / 2).unwrap();
    for at in [0, 1, 0, 2] {
        used(&folder, at);
    }
    let present = |at: usize| folder.path(indexes[at].0).exists();
    assert_eq!([present(0), present(1), present(2)], [true, false, true]);
    folder.keep_only(|block| block == indexes[2].0);
    assert_eq!([present(0), present(2)], [false, true]);
    assert_eq!(folder.size_bytes(), fs::metadata(folder.path(indexes[2].0)).unwrap().len());
}

/// The sizes of all files below a folder.
fn bytes_below(dir: &Path) -> u64 {
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    entries
        .map(|entry| match entry.metadata() {
            Ok(metadata) if metadata.is_dir() => bytes_below(&entry.path()),
            Ok(metadata) => metadata.len(),
            Err(_) => 0,
        })
        .sum()
}

/// An index that checks the size of the folder of headers whenever it is read.
struct Watched(Arc<dyn ReadAt>, PathBuf, u64);

impl ReadAt for Watched {
    fn size_bytes(&self) -> u64 {
        self.0.size_bytes()
    }

    fn read_at(&self, range: Range<u64>) -> io::Result<Bytes> {
        let bytes = bytes_below(&self.1);
        assert!(bytes <= self.2, "{bytes} bytes of headers, the limit is {}", self.2);
        self.0.read_at(range)
    }
}

#[test]
fn what_an_earlier_run_left_is_brought_within_the_limit() {
    let dir = tempfile::tempdir().unwrap();
    let folder = HeaderFolder::open(dir.path(), u64::MAX).unwrap();
    for number in 1..=3 {
        let (block, index, _) = index_of(300, number);
        folder.index(block, Arc::clone(&index), &index).unwrap();
    }
    let three = folder.size_bytes();
    for number in 3..=4 {
        let path = folder.path(Ulid::from_parts(number, 1));
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path.with_file_name("index-header.tmp"), vec![1; 100_000]).unwrap();
    }
    let folder = HeaderFolder::open(dir.path(), three / 2).unwrap();
    assert!(folder.size_bytes() > 0 && bytes_below(dir.path()) <= three / 2, "{}", bytes_below(dir.path()));
    assert!(!folder.path(Ulid::from_parts(4, 1)).parent().unwrap().exists());
}

#[test]
fn headers_that_are_written_at_once_stay_within_the_limit_and_so_does_a_large_one() {
    let dir = tempfile::tempdir().unwrap();
    let (_, index, _) = index_of(300, 1);
    let sections = IndexSections::read(Ulid::from_parts(1, 1), &index).unwrap();
    let one = sections.symbols.end - sections.symbols.start + sections.postings_table.end
        - sections.postings_table.start
        + 34;
    let limit = one * 5 / 2;
    let folder = HeaderFolder::open(dir.path(), limit).unwrap();
    std::thread::scope(|scope| {
        for number in 1..=8 {
            let folder = &folder;
            scope.spawn(move || {
                let (block, index, _) = index_of(300, number);
                let expected = values(block, Arc::clone(&index));
                let watched: Arc<dyn ReadAt> = Arc::new(Watched(index, folder.root.clone(), limit));
                let headered = folder.index(block, Arc::clone(&watched), &watched).unwrap();
                assert_eq!(values(block, headered), expected);
            });
        }
    });
    assert!((one..=limit).contains(&bytes_below(dir.path())), "{} bytes", bytes_below(dir.path()));
    let folder = HeaderFolder::open(dir.path(), one - 1).unwrap();
    let (block, index, _) = index_of(300, 9);
    let headered = folder.index(block, Arc::clone(&index), &index).unwrap();
    assert_eq!(values(block, headered), values(block, index));
    assert_eq!((folder.path(block).exists(), bytes_below(dir.path())), (false, 0));
}
