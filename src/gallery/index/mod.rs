//! The index: what makes a search fast without making it wrong.
//!
//! A template is rounded once, when it enters, to 16 bits a number with a power of two as its step ([`template`] argues why reading it
//! back is exact). The 16 bits lie in three planes: of 4, 4 and 8. A search scans the first with integer products ([`kernel`]), which
//! reads an eighth of what `f32` would, and knows how far each coarse score can lie from the true one: only rows that could still be
//! among the best are looked at by the second, and of these only what still could is scored with all 16 bits ([`scan`]). So the scan
//! finds what comparing every row would find, by construction; how the numbers are spread decides the time alone.
//!
//! Above a size that a measurement chooses, one-bit [`sketch`]es name the rows worth scoring ([`shortlist`]), looked at one after
//! another or, in the largest galleries, by a [`graph`]; they are scored exactly all the same.
//!
//! Rows lie in segments that snapshots share ([`matrix`]), so that a change copies one segment and not the gallery.
mod graph;
mod kernel;
mod locked;
mod matrix;
mod scan;
mod shortlist;
mod sketch;
mod template;

pub(crate) use kernel::Kernel;
pub(crate) use matrix::Matrix;
pub(crate) use scan::{Top, scan};
pub use shortlist::GraphError;
pub(crate) use shortlist::{Cover, Shortlist};
pub(crate) use template::{Probe, as_kept};
