//! Series, scalars, instants and annotations: what operators and functions work on.

pub(crate) mod annotations;
pub(crate) mod column;
pub(crate) mod note;
pub(crate) mod notes;
pub(crate) mod scalar;
pub(crate) mod steps;
