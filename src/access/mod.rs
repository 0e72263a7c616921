//! Who may pass which door, and the grant that says so.

pub mod grant;
