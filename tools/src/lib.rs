//! Commands that look after blocks and buckets.
