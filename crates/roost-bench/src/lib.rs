//! roost-bench
