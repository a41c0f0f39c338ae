//! Clusters of real processes on loopback.
//!
//! Owns: what several members do together, seen from outside. Must never: run as anything but processes of the program.

#[cfg(test)]
mod process;

#[cfg(test)]
mod basics;
