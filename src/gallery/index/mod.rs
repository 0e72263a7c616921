//! The index: what makes a search fast without making it wrong.
//!
//! A template is rounded once, when it enters, to 16 bits a number with a power of two as its step ([`template`] argues why reading it
//! back is exact). The 16 bits lie in planes: of 1, 1, 2, 4 and 8. A search looks the products of the first up in tables, many rows at
//! a time ([`kernel`]), which reads a thirty-second of what `f32` would (half of that, in rougher tables, where the one best row is
//! asked for), and knows how far each estimate can lie from the true score: only where somebody could still be among the best are the
//! second plane and the third looked at, and only what could still then is scored with all 16 bits ([`scan`]). The bound holds but for
//! a chance of 4·10⁻⁷ a search, by the random rotation that templates lie under ([`probe`]); an estimate by a few bits a number under
//! a random rotation, and its bound, are those of RaBitQ (Gao and Long, SIGMOD 2024), with levels that are the row's own.
//!
//! Above a size that a measurement chooses, a [`graph`] over one-bit [`sketch`]es may name the rows worth scoring ([`shortlist`]), where
//! trials show that it finds whom the scan finds; they are scored exactly all the same.
//!
//! Rows lie in segments that snapshots share ([`matrix`]), so that a change copies one segment and not the gallery.
mod graph;
mod kernel;
mod locked;
mod matrix;
mod probe;
mod scan;
mod shortlist;
mod sketch;
mod template;

pub(crate) use kernel::Kernel;
pub(crate) use matrix::Matrix;
pub(crate) use probe::Probe;
pub(crate) use scan::{First, Top, scan};
pub use shortlist::GraphError;
pub(crate) use shortlist::{Cover, Shortlist};
pub(crate) use template::as_kept;
