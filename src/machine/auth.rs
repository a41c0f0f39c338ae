//! What commands about users and roles do to the state.
//!
//! Owns: that the state and the digest know of each change. Must never: decide what one does (`auth` does), or who may ask for it. Part of [`Machine`].

use std::sync::Arc;

use super::Machine;
use crate::command::{AuthCommand, Outcome, Rejection};

impl Machine {
    pub(super) fn execute_auth(&mut self, command: &AuthCommand) -> Result<Outcome, Rejection> {
        let auth = &self.tip.view().facts().auth;
        let next = auth.after(command)?;
        if next != **auth {
            self.tip.digest_mut().auth(&next);
            self.tip.facts_mut().auth = Arc::new(next);
        }
        Ok(Outcome::Auth)
    }
}
