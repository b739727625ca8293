//! roost
