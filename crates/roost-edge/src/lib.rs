//! roost-edge
