//! Empty: only the manifest beside it is of use.
