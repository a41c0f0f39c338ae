//! The request of an old etcdctl, as it was recorded, and everything that must pass as it is.

use std::collections::VecDeque;

use super::*;

/// The first request of etcdctl 3.4.23 for `endpoint status` of `http://127.0.0.1:23999`: frame and all.
const RECORDED: &str = "0000770104000000018386459760a924882d9dcb6571afa066a925a87510ac6e48d36a3f41909d29aee30c044eae\
     05c0b86e0997df7f5f8b1d75d0620d263d4c4d65647a8b9acac8b4c7602bb2caecff40027465864d833505b11f40899acac8b24d494f6a\
     7f8669f7de75f66d408d25062d495875996ee5b1063d5f03332e34";

fn bytes(hex: &str) -> Vec<u8> {
    let digits: Vec<u8> = hex.bytes().filter(u8::is_ascii_hexdigit).collect();
    digits.chunks(2).map(|pair| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap()).collect()
}

fn frame(kind: u8, flags: u8, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    [&length[1..], &[kind, flags, 0, 0, 0, 1], payload].concat()
}

/// A request with this authority, not coded, between two other fields.
fn request(authority: &str, flags: u8, before: &[u8], after: &[u8]) -> Vec<u8> {
    let mut payload = before.to_vec();
    payload.extend([0x83, 0x41, u8::try_from(authority.len()).unwrap()]);
    payload.extend(authority.bytes());
    payload.push(0x86);
    payload.extend(after);
    frame(HEADERS, flags, &payload)
}

fn authority_of(frame: &[u8]) -> Vec<u8> {
    find_authority(&frame[FRAME_HEAD_BYTES..]).unwrap().2
}

/// etcdctl of Debian 12 asked for the status of an endpoint with its scheme, and had its stream reset.
#[test]
fn a_recorded_url_becomes_its_authority() {
    let recorded = bytes(RECORDED);
    assert_eq!(authority_of(&recorded), b"http://127.0.0.1:23999");
    let mended = mend(&recorded).unwrap();
    assert_eq!(authority_of(&mended), b"127.0.0.1:23999");
    let length = usize::from(mended[1]) * 256 + usize::from(mended[2]);
    assert_eq!(length + FRAME_HEAD_BYTES, mended.len());
    // All but the one string is as it was.
    let (start, end) = (FRAME_HEAD_BYTES + 28, FRAME_HEAD_BYTES + 28 + 17);
    assert_eq!(mended[FRAME_HEAD_BYTES..start], recorded[FRAME_HEAD_BYTES..start]);
    assert_eq!(mended[start + 16..], recorded[end..]);
}

#[test]
fn padding_and_priority_are_stepped_over() {
    let flags = FLAG_PADDED | FLAG_PRIORITY;
    let url = request("https://etcd.example:2379", flags, &[2, 0, 0, 0, 0, 9], &[0, 0]);
    let plain = request("etcd.example:2379", flags, &[2, 0, 0, 0, 0, 9], &[0, 0]);
    assert_eq!(mend(&url), Some(plain));
}

#[test]
fn everything_else_passes_as_it_is() {
    for authority in ["127.0.0.1:2379", "[::1]:2379", "", "http://", "http://a/b", "ftp://a:1", "http:/a"] {
        assert_eq!(mend(&request(authority, 4, &[], &[])), None, "{authority}");
    }
    let recorded = bytes(RECORDED);
    for end in 0..recorded.len() {
        let cut = recorded[..end].to_vec();
        // A frame that ends early may still hold the whole field; it must not panic, and never grow.
        assert!(mend(&cut).is_none_or(|mended| mended.len() <= cut.len()));
    }
    let mut prng = crate::prng::Prng::new(1);
    for _ in 0..20_000 {
        let mut noise = recorded.clone();
        let place = usize::try_from(prng.range(0, noise.len() as u64)).unwrap();
        noise[place] = prng.next_u64().to_le_bytes()[0];
        let _ = mend(&noise);
    }
}

#[test]
fn letters_digits_and_brackets_are_decoded() {
    // "www.example.com" of RFC 7541, appendix C.4.1.
    assert_eq!(decode(&bytes("f1e3c2e5f23a6ba0ab90f4ff")).unwrap(), b"www.example.com");
    // Every code is a prefix of no other, and each character is there once.
    let all: Vec<(u32, u32)> = CODES
        .iter()
        .flat_map(|(bits, first, of)| (0..u32::try_from(of.len()).unwrap()).map(move |n| (*bits, first + n)))
        .collect();
    for (n, (bits, code)) in all.iter().enumerate() {
        for (other_bits, other) in &all[n + 1..] {
            assert!(bits <= other_bits && other >> (other_bits - bits) != *code);
        }
    }
}

/// Bytes that come a few at a time.
struct Trickle {
    bytes: VecDeque<u8>,
    at_a_time: usize,
}

impl Read for Trickle {
    fn poll_read(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
        mut cursor: ReadBufCursor<'_>,
    ) -> Poll<std::io::Result<()>> {
        let count = self.at_a_time.min(self.bytes.len()).min(cursor.remaining());
        let some: Vec<u8> = self.bytes.drain(..count).collect();
        cursor.put_slice(&some);
        Poll::Ready(Ok(()))
    }
}

fn read_all(bytes: &[u8], at_a_time: usize) -> Vec<u8> {
    let mut mending = Mending::new(Trickle { bytes: bytes.iter().copied().collect(), at_a_time });
    let mut all = Vec::new();
    smol::block_on(async {
        loop {
            let mut space = [0; 100];
            let mut buffer = ReadBuf::new(&mut space);
            std::future::poll_fn(|cx| Pin::new(&mut mending).poll_read(cx, buffer.unfilled())).await.unwrap();
            if buffer.filled().is_empty() {
                return;
            }
            all.extend_from_slice(buffer.filled());
        }
    });
    all
}

#[test]
fn a_connection_is_read_whole_however_it_arrives() {
    let start = [&[b'P'; PREFACE_BYTES][..], &frame(4, 0, &[0; 6]), &frame(4, 1, &[])].concat();
    let body = frame(0, 1, &[0; 5]);
    let (url, plain) = (request("http://a:1", 4, &[], &[]), request("a:1", 4, &[], &[]));
    for at_a_time in [1, 3, 64, 5000] {
        let old_client = [&start[..], &url, &body, &url, &body].concat();
        let expected = [&start[..], &plain, &body, &plain, &body].concat();
        assert_eq!(read_all(&old_client, at_a_time), expected);
        // A client that names an authority at first is not looked at any more.
        let new_client = [&start[..], &plain, &body, &url, &body].concat();
        assert_eq!(read_all(&new_client, at_a_time), new_client);
        let unfinished = [&start[..], &url[..7]].concat();
        assert_eq!(read_all(&unfinished, at_a_time), unfinished);
    }
}
