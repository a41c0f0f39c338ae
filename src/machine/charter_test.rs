//! The rules of the charter, one by one.
//!
//! Owns: the cases. Must never: share code with what it judges. Driven by the test runner.
