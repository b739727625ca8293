//! Nothing but a place for the tests in `e2e/` and `interop/`: see the README.
