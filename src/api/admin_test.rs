//! Who may do what, and whom an operator means.

use tonic::{Code, Request};

use super::*;

fn fingerprint(first: u8, second: u8) -> Fingerprint {
    let mut bytes = [0xee; 32];
    (bytes[0], bytes[15]) = (first, second);
    Fingerprint::from_bytes(bytes)
}

#[test]
fn only_calls_that_are_known_to_come_from_here_may_change_things() {
    let from = |whence: Option<Whence>| {
        let mut request = Request::new(());
        if let Some(whence) = whence {
            request.extensions_mut().insert(whence);
        }
        require_here(&request).map_err(|status| status.code())
    };
    assert_eq!(from(Some(Whence::Here)), Ok(()));
    assert_eq!(from(Some(Whence::Elsewhere)), Err(Code::PermissionDenied));
    assert_eq!(from(None), Err(Code::PermissionDenied));
}

#[test]
fn the_beginning_of_a_fingerprint_is_enough_if_only_one_pending_node_has_it() {
    let (one, two, other) = (fingerprint(1, 2), fingerprint(1, 3), fingerprint(9, 9));
    let meant = |text: &str| meant(text, [one, two, other].into_iter()).map_err(|status| status.code());
    let begins = |first: &str, last: &str| format!("{first}{}{last}", "ee".repeat(14));
    assert_eq!(meant(&begins("09 ", " 09")), Ok(other));
    assert_eq!(meant(&begins("09", "09EEee")), Ok(other));
    assert_eq!(meant(&begins("01", "02")), Ok(one));
    // A key that begins like another one's in so few digits is made in no time.
    assert_eq!(meant(&begins("09", "0")), Err(Code::InvalidArgument), "too short");
    assert_eq!(meant(&begins("09", "0x")), Err(Code::InvalidArgument));
    assert_eq!(meant(&begins("09", "08")), Err(Code::NotFound));
    let unknown = Fingerprint::from_bytes([7; 32]);
    assert_eq!(meant(&unknown.to_string()), Ok(unknown), "a whole one need not be pending");
    let twins = || [one, one].into_iter().chain([fingerprint(1, 2)]);
    assert_eq!(super::meant(&begins("01", "02"), twins()).unwrap_err().code(), Code::FailedPrecondition);
}

#[test]
fn a_token_id_is_read_as_it_is_shown() {
    let id = TokenId([0x01, 0x23, 0x45, 0x67, 0x89, 0xab, 0xcd, 0xef]);
    assert_eq!(token_id(&hex(&id.0)), Some(id));
    for bad in ["", "0123456789abcde", "0123456789abcdef0", "0123456789abcdeg"] {
        assert_eq!(token_id(bad), None, "{bad}");
    }
}

/// The window is noted in the charter wherever a cluster has formed by itself, and lets nodes in only where they come in by it.
#[test]
fn no_window_is_shown_or_opened_where_it_lets_nobody_in() {
    let charter = Charter { elapsed: 100, ..Charter::automatic() };
    assert_eq!(open_seconds(&charter, ComesIn::ByWindow), charter.window.closes - 100);
    assert!(require_window(ComesIn::ByWindow).is_ok());
    for comes_in in [ComesIn::BySecret, ComesIn::ByNothing] {
        assert_eq!(open_seconds(&charter, comes_in), 0);
        assert_eq!(require_window(comes_in).unwrap_err().code(), Code::FailedPrecondition);
    }
}
