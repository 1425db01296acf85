//! Rate limits.

mod quota;

pub use self::quota::Quota;
