//! The end of serving, announced to everything that serves.
//!
//! Owns: the announcement. Must never: wait for anybody (the one who stops bounds that). Driven by `app`.

use std::convert::Infallible;

use smol::channel::{self, Receiver, Sender};

/// Who may announce the end; dropping it announces it too.
#[derive(Debug)]
pub struct Stop {
    sender: Sender<Infallible>,
}

/// Who wants to know of the end.
#[derive(Clone, Debug)]
pub struct Stopping {
    receiver: Receiver<Infallible>,
}

impl Stop {
    /// A pair of the two.
    pub fn pair() -> (Stop, Stopping) {
        // Nothing is ever sent: closing the channel is the message, and reaches every receiver.
        let (sender, receiver) = channel::bounded(1);
        (Stop { sender }, Stopping { receiver })
    }

    /// Announces the end.
    pub fn announce(&self) {
        self.sender.close();
    }
}

impl Stopping {
    /// Resolves once the end was announced.
    pub async fn announced(&self) {
        let Err(channel::RecvError) = self.receiver.recv().await;
    }

    /// Whether it was.
    pub fn is_announced(&self) -> bool {
        self.receiver.is_closed()
    }
}
