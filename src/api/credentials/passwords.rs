//! Passwords, and what is kept of them: bcrypt, as etcd has it.
//!
//! Owns: that hashing takes the time of one thread, and the same time for a user that there is and for one that there is not. Must never: run on a thread that
//! serves clients, keep or log a password, or take a hash that would take a box minutes to try. Driven by `auth`.

use tonic::Status;

use super::turns::{Asker, Turns};
use crate::api::errors;
use crate::runtime::clock::entropy;
use crate::runtime::{Handle, ServeError};

/// Default of `--bcrypt-cost` (etcd's default): some 60 ms on a fast machine, and 300 on a small box.
pub const BCRYPT_COST: u32 = 10;
/// The least that bcrypt knows.
pub const BCRYPT_COST_MIN: u32 = 4;
/// The most that is set or taken: 64 times what the default takes, so that a hash that somebody else made costs no more than some seconds.
pub const BCRYPT_COST_MAX: u32 = 16;
/// The longest password, in bytes: bcrypt looks at no more.
const PASSWORD_BYTES_MAX: usize = 72;
/// Bytes of bcrypt's salt.
const SALT_BYTES: usize = 16;
/// Salt and hash of nobody's password, in bcrypt's letters for zeros.
const NOBODYS: &str = ".....................................................";

/// A password as it is compared: one that is longer than any is as good as any other such one, and is not kept while it waits.
pub fn to_compare(password: String) -> String {
    if password.len() > PASSWORD_BYTES_MAX { " ".repeat(PASSWORD_BYTES_MAX + 1) } else { password }
}

/// Where passwords are hashed and compared. Cheap to clone.
#[derive(Clone)]
pub struct Passwords {
    cost: u32,
    /// One at a time: the pool has two threads, and reads have the other one.
    turns: Turns,
}

impl Passwords {
    /// Hashes at this cost, between [`BCRYPT_COST_MIN`] and [`BCRYPT_COST_MAX`].
    pub fn new(cost: u32) -> Self {
        let cost = cost.clamp(BCRYPT_COST_MIN, BCRYPT_COST_MAX);
        Self { cost, turns: Turns::default() }
    }

    /// What is kept of a new password.
    pub async fn hash(
        &self,
        handle: &Handle,
        asker: Option<Asker>,
        password: String,
    ) -> Result<String, Status> {
        if password.len() > PASSWORD_BYTES_MAX {
            return Err(errors::password_too_long());
        }
        let mut salt = [0; SALT_BYTES];
        entropy(&mut salt).map_err(|error| Status::internal(format!("covey: no randomness: {error}")))?;
        let cost = self.cost;
        let hashed =
            self.in_turn(handle, asker, move || bcrypt::hash_with_salt(password, cost, salt)).await?;
        hashed.map(|parts| parts.to_string()).map_err(|error| Status::internal(format!("covey: {error}")))
    }

    /// Whether a password is the one that was hashed. Where there is none (`None`) the answer is no, and takes as long.
    pub async fn is_right(
        &self,
        handle: &Handle,
        asker: Option<Asker>,
        hash: Option<String>,
        password: String,
    ) -> Result<bool, Status> {
        let cost = self.cost;
        self.in_turn(handle, asker, move || compare(hash.as_deref(), &password, cost, fits)).await
    }

    /// Runs it on the pool once it is its turn. Whoever goes away before that does not get one; work that has begun keeps its turn until it is done.
    async fn in_turn<T: Send + 'static>(
        &self,
        handle: &Handle,
        asker: Option<Asker>,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, Status> {
        let turn = self.turns.take(asker).await.ok_or(ServeError::TooManyRequests)?;
        let done = handle.blocking(move || {
            let done = work();
            drop(turn);
            done
        });
        Ok(done.await)
    }
}

/// Whether this is what bcrypt makes of a password, at a cost that is taken.
pub fn is_hash(text: &str) -> bool {
    text.parse::<bcrypt::HashParts>()
        .is_ok_and(|parts| (BCRYPT_COST_MIN..=BCRYPT_COST_MAX).contains(&parts.get_cost()))
}

/// Whether a password fits a hash, as `fits` finds it out. That is asked once, also where there is no hash, or none that is taken: about one of the same cost that is nobody's.
fn compare(hash: Option<&str>, password: &str, cost: u32, fits: impl FnOnce(&str, &str) -> bool) -> bool {
    let hash = hash.filter(|hash| is_hash(hash));
    let nobodys = format!("$2b${cost:02}${NOBODYS}");
    let fits = fits(password, hash.unwrap_or(&nobodys));
    fits && hash.is_some() && password.len() <= PASSWORD_BYTES_MAX
}

/// Whether bcrypt makes this hash of a password.
fn fits(password: &str, hash: &str) -> bool {
    bcrypt::verify(password, hash).unwrap_or(false)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What Go's bcrypt, which is etcd's, makes of "allmine" (a vector of its tests).
    const BY_ANOTHER: &str = "$2a$10$XajjQvNhvvRt5GSeFk1xFeyqRrsxkhBkUiQeg0dt.wU1qD4aFDcga";

    fn is_right(hash: Option<&str>, password: &str) -> bool {
        compare(hash, password, BCRYPT_COST_MIN, fits)
    }

    #[test]
    fn a_password_is_known_again_and_no_other_one_is() {
        let hash = bcrypt::hash_with_salt("pass", BCRYPT_COST_MIN, [7; SALT_BYTES]).unwrap().to_string();
        assert!(is_hash(&hash) && hash.starts_with("$2b$04$"));
        assert!(is_right(Some(&hash), "pass"));
        for wrong in ["", "Pass", "pass ", "pass\0", "pas"] {
            assert!(!is_right(Some(&hash), wrong), "{wrong:?}");
        }
        assert!(!is_right(None, "pass"));
    }

    /// bcrypt itself looks at 72 bytes: what comes behind them must not be taken for nothing.
    #[test]
    fn a_password_is_not_known_by_its_first_72_bytes() {
        let long = "p".repeat(PASSWORD_BYTES_MAX);
        let hash = bcrypt::hash_with_salt(&long, BCRYPT_COST_MIN, [7; SALT_BYTES]).unwrap().to_string();
        assert!(is_right(Some(&hash), &long));
        assert!(!is_right(Some(&hash), &format!("{long}!")));
    }

    #[test]
    fn a_hash_is_bcrypts_and_not_too_dear() {
        assert!(is_hash(BY_ANOTHER));
        assert!(is_right(Some(BY_ANOTHER), "allmine"));
        let of_cost = |cost: u32| BY_ANOTHER.replace("$10$", &format!("${cost:02}$"));
        assert!(is_hash(&of_cost(BCRYPT_COST_MAX)));
        for none in ["", "pass", &of_cost(BCRYPT_COST_MAX + 1), &of_cost(31), &of_cost(3), &BY_ANOTHER[..59]]
        {
            assert!(!is_hash(none), "{none}");
            assert!(!is_right(Some(none), "pass"), "{none}");
        }
    }

    /// Of users that do not exist nobody learns it by the time it takes: as much is hashed for them as for a wrong password.
    #[test]
    fn an_unknown_user_takes_as_long_as_a_wrong_password() {
        let cost = BCRYPT_COST_MIN + 1;
        let hash = bcrypt::hash_with_salt("pass", cost, [7; SALT_BYTES]).unwrap().to_string();
        let long = "p".repeat(PASSWORD_BYTES_MAX + 1);
        for hash in [None, Some("none"), Some(&*hash)] {
            for password in ["wrong", "", "pass\0", &long] {
                let mut hashed = Vec::new();
                let is_right = compare(hash, password, cost, |password, hash| {
                    hashed.push(hash.parse::<bcrypt::HashParts>().unwrap().get_cost());
                    fits(password, hash)
                });
                assert!(!is_right);
                assert_eq!(hashed, [cost], "{hash:?} {password:?}");
            }
        }
        // Even if somebody found what it is the hash of.
        assert!(!compare(None, "pass", cost, |_, _| true));
    }
}
