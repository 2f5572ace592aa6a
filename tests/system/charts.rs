//! The charts in `deploy/charts`, and the objects in `deploy/kustomize` that are rendered from them.
//!
//! The objects are committed, so that most checks need no `helm`. With it, they are compared with what it renders. Reading order:
//! `tools.rs`, `render.rs`, `objects.rs`, `checks.rs` with what is checked about objects, `broken.rs` shows that each check sees a fault,
//! `rendering.rs` with what is checked about rendering, `values.rs`, `extra_args.rs`, `frozen.rs`, `documentation.rs`,
//! `bundle.rs`.

mod broken;
mod bundle;
mod checks;
mod documentation;
mod extra_args;
mod frozen;
mod objects;
mod render;
mod rendering;
pub(crate) mod tools;
mod trust_domains;
mod values;
