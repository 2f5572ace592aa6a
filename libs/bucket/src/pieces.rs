//! The content of an object as a stream of pieces. Its length is checked against the size that the store reported.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::sync::Arc;

use bytes::Bytes;
use futures::stream::BoxStream;
use futures::{Stream, StreamExt};
use object_store::{Error, GetResult, GetResultPayload};

/// Bytes of a local file in one piece. The library's own stream has pieces of 8 KiB and starts a task for each.
const FILE_PIECE_BYTES: u64 = 1 << 20;

/// Why an object could not be read to its end.
#[derive(Debug)]
pub(crate) enum PieceError {
    /// The answer has more bytes than the object.
    TooLong,
    /// The answer ends this many bytes before the object does.
    TooShort(u64),
    /// The store reported an error.
    Store(Error),
}

/// The content of an object as a stream. It ends with an error if the answer has more or fewer bytes than the object.
pub(crate) fn checked(answer: GetResult) -> BoxStream<'static, Result<Bytes, PieceError>> {
    let left_bytes = answer.meta.size;
    let pieces = match answer.payload {
        GetResultPayload::File(file, _) => of_file(Arc::new(file), left_bytes).boxed(),
        GetResultPayload::Stream(pieces) => pieces,
    };
    let checked = futures::stream::try_unfold((pieces, left_bytes), |(mut pieces, left_bytes)| async move {
        match pieces.next().await {
            Some(Ok(piece)) => match left_bytes.checked_sub(piece.len() as u64) {
                Some(left_bytes) => Ok(Some((piece, (pieces, left_bytes)))),
                None => Err(PieceError::TooLong),
            },
            Some(Err(error)) => Err(PieceError::Store(error)),
            None if left_bytes > 0 => Err(PieceError::TooShort(left_bytes)),
            None => Ok(None),
        }
    });
    checked.boxed()
}

fn of_file(file: Arc<File>, size_bytes: u64) -> impl Stream<Item = Result<Bytes, Error>> {
    futures::stream::try_unfold(0, move |start| {
        let file = Arc::clone(&file);
        async move {
            let length = FILE_PIECE_BYTES.min(size_bytes - start);
            if length == 0 {
                return Ok(None);
            }
            let read = move || {
                let mut piece = vec![0; length as usize];
                file.read_exact_at(&mut piece, start)?;
                Ok(Bytes::from(piece))
            };
            let read = tokio::task::spawn_blocking(read).await.map_err(std::io::Error::other).flatten();
            let piece =
                read.map_err(|error| Error::Generic { store: "LocalFileSystem", source: error.into() })?;
            Ok(Some((piece, start + length)))
        }
    })
}
