//! The content of an object as a stream of pieces, exactly as long as the store said it would be.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::sync::Arc;

use bytes::Bytes;
use futures::stream::BoxStream;
use futures::{Stream, StreamExt};
use object_store::{Error, GetResult, GetResultPayload};

use crate::bucket::Bucket;
use crate::error::BucketError;
use crate::metrics::Operation;

/// Bytes of a local file in one piece. The store's own stream has pieces of 8 KiB, each read by a task of its own.
const FILE_PIECE_BYTES: u64 = 1 << 20;

/// The pieces of an answer; ends with an error where they are more or fewer bytes than the object has.
pub(crate) fn checked(
    bucket: Bucket,
    action: String,
    answer: GetResult,
) -> BoxStream<'static, Result<Bytes, BucketError>> {
    let left_bytes = answer.meta.size;
    let pieces = match answer.payload {
        GetResultPayload::File(file, _) => of_file(Arc::new(file), left_bytes).boxed(),
        GetResultPayload::Stream(pieces) => pieces,
    };
    let checked = futures::stream::try_unfold((pieces, left_bytes), move |(mut pieces, left_bytes)| {
        let (bucket, action) = (bucket.clone(), action.clone());
        async move {
            match pieces.next().await {
                Some(Ok(piece)) if piece.len() as u64 <= left_bytes => {
                    let left_bytes = left_bytes - piece.len() as u64;
                    bucket.count_bytes(Operation::Get, piece.len() as u64);
                    Ok(Some((piece, (pieces, left_bytes))))
                }
                Some(Ok(_)) => Err(bucket.corrupt(action, "the answer is longer than the object")),
                Some(Err(error)) => Err(bucket.failed(action, error)),
                None if left_bytes > 0 => {
                    let reason = format!("the answer ends {left_bytes} bytes too early");
                    Err(bucket.corrupt(action, reason))
                }
                None => Ok(None),
            }
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
