//! The manifest of a block: every file with its size and SHA-256, as `thanos.files` in `meta.json` lists them.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use aws_lc_rs::digest::{Context, SHA256};
use futures::{StreamExt, TryStreamExt};
use tsdb::{FileHash, FileMeta};

use crate::layout::{CHUNKS_DIR, INDEX_FILE, META_FILE};

/// Name of the hash in `thanos.files`.
pub(crate) const HASH_FUNCTION: &str = "SHA256";
/// Bytes of a file that are read at once.
const BUFFER_BYTES: usize = 1 << 20;

/// A file of a block, with the size and hash that a copy of it must have.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ManifestFile {
    /// Path below the block's folder, with `/`.
    pub path: String,
    /// Size in bytes.
    pub size_bytes: u64,
    /// SHA-256 in lower case hexadecimal digits; `None` if the uploader wrote none.
    pub sha256: Option<String>,
}

/// SHA-256 of content that comes piece by piece.
pub(crate) struct Hasher(Context);

impl Hasher {
    pub(crate) fn new() -> Self {
        Self(Context::new(&SHA256))
    }

    pub(crate) fn update(&mut self, piece: &[u8]) {
        self.0.update(piece);
    }

    /// In lower case hexadecimal digits.
    pub(crate) fn finish(self) -> String {
        self.0.finish().as_ref().iter().map(|byte| format!("{byte:02x}")).collect()
    }
}

/// The files that a `meta.json` lists, without itself. The list is empty for blocks of old versions of Thanos.
///
/// Paths that lead out of the block's folder are dropped: they do not come from this program.
pub fn manifest_of(meta: &tsdb::BlockMeta) -> Vec<ManifestFile> {
    let files = meta.thanos.iter().flat_map(|thanos| &thanos.files);
    let usable = |file: &&FileMeta| file.rel_path != META_FILE && is_block_path(&file.rel_path);
    files
        .filter(usable)
        .filter_map(|file| {
            let hash = file.hash.as_ref().filter(|hash| hash.func == HASH_FUNCTION);
            Some(ManifestFile {
                path: file.rel_path.clone(),
                size_bytes: file.size_bytes?,
                sha256: hash.map(|hash| hash.value.to_ascii_lowercase()),
            })
        })
        .collect()
}

/// Whether a path stays inside the folder of a block.
pub(crate) fn is_block_path(path: &str) -> bool {
    !path.is_empty() && path.split('/').all(|part| !matches!(part, "" | "." | "..")) && !path.contains('\\')
}

/// The files of a local block that belong into a bucket, sorted by name; `concurrency` files are hashed at a time.
///
/// # Errors
/// A folder without `index`, or an error of the system with the path.
pub(crate) async fn read_manifest(dir: &Path, concurrency: usize) -> io::Result<Vec<ManifestFile>> {
    let hashes = list_files(dir)?.into_iter().map(|path| {
        let local = dir.join(&path);
        async move {
            let hash = tokio::task::spawn_blocking(move || hash_file(&local)).await;
            let (size_bytes, sha256) = hash.map_err(io::Error::other).flatten()?;
            Ok(ManifestFile { path, size_bytes, sha256: Some(sha256) })
        }
    });
    futures::stream::iter(hashes).buffered(concurrency.max(1)).try_collect().await
}

/// Paths of a local block's files, sorted.
fn list_files(dir: &Path) -> io::Result<Vec<String>> {
    let mut paths = vec![INDEX_FILE.to_owned()];
    let chunks = dir.join(CHUNKS_DIR);
    let entries = match std::fs::read_dir(&chunks) {
        Ok(entries) => Some(entries),
        // A block without samples may have no such folder.
        Err(error) if error.kind() == io::ErrorKind::NotFound => None,
        Err(error) => return Err(named(&chunks, error)),
    };
    for entry in entries.into_iter().flatten() {
        let name = entry.map_err(|error| named(&chunks, error))?.file_name();
        let name = name.to_string_lossy();
        // Other files, such as those of an interrupted write, do not belong to the block.
        if !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_digit()) {
            paths.push(format!("{CHUNKS_DIR}/{name}"));
        }
    }
    paths.sort_unstable();
    Ok(paths)
}

/// Size and SHA-256 of a local file. Blocks the thread.
pub(crate) fn hash_file(path: &Path) -> io::Result<(u64, String)> {
    let hash = || {
        let mut file = File::open(path)?;
        let mut hasher = Hasher::new();
        let mut buffer = vec![0; BUFFER_BYTES];
        let mut size_bytes = 0;
        loop {
            match file.read(&mut buffer)? {
                0 => return Ok((size_bytes, hasher.finish())),
                length => {
                    hasher.update(&buffer[..length]);
                    size_bytes += length as u64;
                }
            }
        }
    };
    hash().map_err(|error| named(path, error))
}

/// The entries of `thanos.files`, with one for `meta.json` itself, as Thanos writes them.
pub(crate) fn to_files(manifest: &[ManifestFile]) -> Vec<FileMeta> {
    let mut files: Vec<FileMeta> = manifest
        .iter()
        .map(|file| FileMeta {
            rel_path: file.path.clone(),
            size_bytes: Some(file.size_bytes),
            hash: file.sha256.clone().map(|value| FileHash { func: HASH_FUNCTION.to_owned(), value }),
        })
        .collect();
    files.push(FileMeta { rel_path: META_FILE.to_owned(), size_bytes: None, hash: None });
    files.sort_by(|a, b| a.rel_path.cmp(&b.rel_path));
    files
}

/// An error of the system with its path.
pub(crate) fn named(path: &Path, error: io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("{}: {error}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_manifest_lists_segments_and_index_only() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("chunks")).unwrap();
        for (path, content) in [
            ("index", "abc"),
            ("chunks/000002", ""),
            ("chunks/000001", "abc"),
            ("chunks/000001.tmp", "x"),
            ("tombstones", "x"),
            ("meta.json", "{}"),
        ] {
            std::fs::write(dir.path().join(path), content).unwrap();
        }
        let manifest = read_manifest(dir.path(), 2).await.unwrap();
        let paths: Vec<&str> = manifest.iter().map(|file| file.path.as_str()).collect();
        assert_eq!(paths, ["chunks/000001", "chunks/000002", "index"]);
        assert_eq!(
            manifest[0].sha256.as_deref(),
            Some("ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad")
        );
        std::fs::remove_file(dir.path().join("index")).unwrap();
        let error = read_manifest(dir.path(), 2).await.unwrap_err().to_string();
        assert!(error.contains("index"), "{error}");
    }

    #[test]
    fn paths_never_lead_out_of_a_block() {
        for path in ["", "/etc/passwd", "../x", "chunks/../../x", "chunks//1", "chunks/.", "a\\b"] {
            assert!(!is_block_path(path), "{path}");
        }
        assert!(is_block_path("chunks/000001") && is_block_path("index"));
    }
}
