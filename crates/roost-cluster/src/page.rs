//! Pages of a listing.

/// Which page is wanted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PageRequest {
    /// At most this many items; at least 1.
    pub size: usize,
    /// The `next` of the page before; `None` for the first.
    pub token: Option<String>,
}

/// One page. It may hold fewer items than asked for, none even, and still have a next one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Page<T> {
    /// What was found.
    pub items: Vec<T>,
    /// Opaque; `None` on the last page.
    pub next: Option<String>,
}
