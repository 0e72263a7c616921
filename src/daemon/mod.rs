//! The process: workers that are watched, signals that are heard, a panic that ends everything.

pub mod panic;
pub mod signals;
pub mod supervisor;
