use model::Sample;
use tsdb::XorEncoder;

use super::*;

/// Opens the files of a directory and repairs them. Zeros are not reported.
fn open(dir: &Path) -> io::Result<(ChunkFiles, Vec<FoundChunk>, Vec<DamagedFile>)> {
    let (files, chunks, mut damaged) = ChunkFiles::scan(dir).unwrap();
    files.repair(&damaged)?;
    damaged.retain(|file| !file.is_zero);
    Ok((files, chunks, damaged))
}

fn chunk(at: i64) -> Chunk {
    let mut encoder = XorEncoder::new();
    (0..5).for_each(|n| encoder.append(Sample::new(at + n, at as f64)).unwrap());
    encoder.finish().unwrap()
}

#[test]
fn chunks_are_found_again_and_files_without_recent_ones_go() {
    let dir = tempfile::tempdir().unwrap();
    let chunks: Vec<Chunk> = (0..10).map(|n| chunk(n * 100)).collect();
    let append = |range: std::ops::Range<usize>| {
        let (files, found, damaged) = open(dir.path()).unwrap();
        assert_eq!((found.len(), damaged.len()), (range.start, 0));
        let pairs: Vec<(u64, &Chunk)> = range.map(|n| (n as u64, &chunks[n])).collect();
        let places = files.append(&pairs).unwrap();
        for (place, (_, chunk)) in places.iter().zip(pairs) {
            assert_eq!(files.read(*place).unwrap(), *chunk);
        }
        files
    };
    append(0..4);
    append(4..7);
    let files = append(7..10);
    let (_, found, _) = open(dir.path()).unwrap();
    for (n, found) in found.iter().enumerate() {
        assert_eq!((found.series, found.range), (n as u64, chunks[n].range));
        assert_eq!(files.read(found.place).unwrap(), chunks[n]);
    }
    files.truncate(600).unwrap();
    assert_eq!(open(dir.path()).unwrap().1.len(), 6);
    files.truncate(10_000).unwrap();
    assert_eq!(open(dir.path()).unwrap().1.len(), 0);
    assert_eq!(files.read(found[9].place).unwrap_err().kind(), io::ErrorKind::NotFound);
    // What comes now is in a new file.
    let place = files.append(&[(1, &chunks[0])]).unwrap()[0];
    assert_eq!((files.read(place).unwrap(), place.file), (chunks[0].clone(), 4));
}

#[test]
fn damage_costs_what_lies_behind_it_in_its_file() {
    let chunks: Vec<Chunk> = (0..5).map(|n| chunk(n * 100)).collect();
    let pairs: Vec<(u64, &Chunk)> = chunks.iter().enumerate().map(|(n, chunk)| (n as u64, chunk)).collect();
    let dir = tempfile::tempdir().unwrap();
    open(dir.path()).unwrap().0.append(&pairs).unwrap();
    let path = dir.path().join("000001");
    let bytes = fs::read(&path).unwrap();
    for at in 0..bytes.len() {
        let mut damaged = bytes.clone();
        damaged[at] ^= 4;
        fs::write(&path, &damaged).unwrap();
        let (files, found, reported) = open(dir.path()).unwrap();
        assert!(found.len() < 5, "byte {at}");
        assert_eq!((reported.len(), reported[0].at + reported[0].lost), (1, bytes.len() as u64));
        for (n, found) in found.iter().enumerate() {
            assert_eq!(files.read(found.place).unwrap(), chunks[n], "byte {at}");
        }
        // What is left is whole.
        assert_eq!(open(dir.path()).unwrap().2, []);
    }
    // Zeros are no damage.
    fs::write(&path, [bytes.clone(), vec![0; 1_000]].concat()).unwrap();
    let (_, found, reported) = open(dir.path()).unwrap();
    assert_eq!((found.len(), reported), (5, vec![]));
    assert_eq!(fs::read(&path).unwrap(), bytes);
}
