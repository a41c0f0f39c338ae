//! What is given any bytes, and what must hold of it. One function for each reader.
//!
//! Owns: the list. Must never: know who drives it: the short run beside this directory, or libFuzzer.

mod clients;
mod commands;
mod disk;
mod door;
mod forming;
mod json;
mod peers;
mod raft;
mod settings;
mod tokens;

/// Something that reads bytes.
pub struct Target {
    pub name: &'static str,
    /// Reads them, and fails by panicking.
    pub run: fn(&[u8]),
    /// Bytes that something of ours has written.
    pub seeds: fn() -> Vec<Vec<u8>>,
    /// Inputs of the short run, beside the seeds.
    pub rounds: u32,
}

/// Each with its inputs in the short run, and a test for it.
macro_rules! targets {
    ($($room:ident::$name:ident $rounds:literal,)*) => {
        /// All of them.
        pub const TARGETS: &[Target] = &[$(Target {
            name: stringify!($name),
            run: $room::$name,
            seeds: $room::seeds::$name,
            rounds: $rounds,
        },)*];

        $(#[cfg(test)]
        #[test]
        fn $name() {
            crate::driver::run(stringify!($name));
        })*
    };
}

targets! {
    commands::command 12000,
    commands::applied 300,
    disk::log 3000,
    disk::rows 12000,
    disk::facts 12000,
    disk::identity 4000,
    disk::image 6000,
    peers::hello 8000,
    peers::frames 12000,
    peers::questions 12000,
    peers::transfer 12000,
    raft::messages 6000,
    forming::joining 12000,
    forming::sighting 8000,
    settings::texts 8000,
    settings::file 1500,
    clients::requests 12000,
    clients::browser 8000,
    clients::certificates 3000,
    tokens::web 8000,
    json::gateway 12000,
    door::connection 300,
    door::call 300,
    door::objects 200,
}
