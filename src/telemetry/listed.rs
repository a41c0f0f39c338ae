//! Several things in one field of a log line.
//!
//! Owns: how they are written, as people would. Must never: allocate for a line that is not logged.

use std::fmt::{self, Display, Formatter};

/// What is in a collection, with commas between; `none` if it is empty.
#[derive(Clone, Copy, Debug)]
pub struct Listed<I>(pub I);

impl<I> Display for Listed<I>
where
    I: Copy + IntoIterator<Item: Display>,
{
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let mut items = self.0.into_iter();
        let Some(first) = items.next() else { return f.write_str("none") };
        first.fmt(f)?;
        items.try_for_each(|item| write!(f, ", {item}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn items_have_commas_between_and_nothing_has_a_word() {
        let urls = vec!["http://10.0.0.1:2380".to_owned(), "http://[fe80::1]:2380".to_owned()];
        assert_eq!(Listed(&urls).to_string(), "http://10.0.0.1:2380, http://[fe80::1]:2380");
        assert_eq!(Listed(&[7]).to_string(), "7");
        assert_eq!(Listed(&Vec::<String>::new()).to_string(), "none");
    }
}
