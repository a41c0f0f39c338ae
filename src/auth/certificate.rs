//! The name in a client's certificate.
//!
//! Owns: which name that is. Must never: judge a certificate: rustls has verified it before. Driven by `tls` and `api`, once for a connection.

use yasna::tags::{TAG_IA5STRING, TAG_PRINTABLESTRING, TAG_UTF8STRING};
use yasna::{ASN1Result, BERReader, Tag};

/// id-at-commonName (RFC 5280, appendix A.1).
const COMMON_NAME: [u64; 4] = [2, 5, 4, 3];
/// How the version begins, which may be missing, and what comes between it and the subject (RFC 5280, section 4.1): serial number, algorithm, issuer and validity.
const VERSION_TAG: u8 = 0xa0;
const BEFORE_SUBJECT: usize = 4;

/// The user that a certificate is for: the common name of its subject; `None` where it is empty or in letters that are not read here, too.
pub fn common_name(certificate: &[u8]) -> Option<String> {
    let (letters, name) = common_name_bytes(certificate)?;
    let is_read = [TAG_UTF8STRING, TAG_PRINTABLESTRING, TAG_IA5STRING].contains(&letters);
    String::from_utf8(name).ok().filter(|name| is_read && !name.is_empty())
}

/// The common name of a certificate's subject, as it stands there, and in which letters; `None` where there is none, or where there are several, of which nobody
/// could say which one counts.
pub fn common_name_bytes(certificate: &[u8]) -> Option<(Tag, Vec<u8>)> {
    let fields = yasna::parse_der(certificate, |reader| {
        reader.read_sequence(|reader| {
            let fields = elements(reader.next())?;
            // Algorithm and signature.
            reader.next().read_der()?;
            reader.next().read_der()?;
            Ok(fields)
        })
    });
    let fields = fields.ok()?;
    let has_version = fields.first()?.first() == Some(&VERSION_TAG);
    let subject = fields.get(usize::from(has_version) + BEFORE_SUBJECT)?;
    let mut names = Vec::new();
    yasna::parse_der(subject, |reader| {
        reader.read_sequence_of(|reader| reader.read_set_of(|reader| attribute(reader, &mut names)))
    })
    .ok()?;
    let [name] = <[_; 1]>::try_from(names).ok()?;
    Some(name)
}

fn elements(sequence: BERReader<'_, '_>) -> ASN1Result<Vec<Vec<u8>>> {
    let mut elements = Vec::new();
    sequence.read_sequence_of(|reader| {
        elements.push(reader.read_der()?);
        Ok(())
    })?;
    Ok(elements)
}

/// Takes note of a common name.
fn attribute(reader: BERReader<'_, '_>, names: &mut Vec<(Tag, Vec<u8>)>) -> ASN1Result<()> {
    reader.read_sequence(|reader| {
        let kind = reader.next().read_oid()?;
        let value = reader.next().read_tagged_der()?;
        if kind.components() == &COMMON_NAME {
            names.push((value.tag(), value.value().to_vec()));
        }
        Ok(())
    })
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, CustomExtension, DistinguishedName, DnType, DnValue, KeyPair};

    use super::{common_name, common_name_bytes};

    fn certificate(parts: &[(DnType, DnValue)]) -> Vec<u8> {
        let mut params = CertificateParams::new(["san.example".to_owned()]).unwrap();
        params.custom_extensions = vec![CustomExtension::from_oid_content(&[1, 2, 3, 4], vec![5, 0])];
        params.distinguished_name = DistinguishedName::new();
        for (kind, value) in parts {
            params.distinguished_name.push(kind.clone(), value.clone());
        }
        params.self_signed(&KeyPair::generate().unwrap()).unwrap().der().to_vec()
    }

    fn utf8(text: &str) -> DnValue {
        DnValue::Utf8String(text.into())
    }

    #[test]
    fn the_name_of_a_user_is_the_common_name() {
        let organisation = (DnType::OrganizationName, utf8("root"));
        for (value, expected) in [
            (utf8("alice"), Some("alice")),
            (utf8("jürgen"), Some("jürgen")),
            (DnValue::PrintableString("bob".try_into().unwrap()), Some("bob")),
            (DnValue::Ia5String("carol".try_into().unwrap()), Some("carol")),
            (utf8(""), None),
            (DnValue::BmpString("dave".try_into().unwrap()), None),
        ] {
            let der = certificate(&[organisation.clone(), (DnType::CommonName, value.clone())]);
            assert_eq!(common_name(&der).as_deref(), expected, "{value:?}");
        }
        assert_eq!(common_name(&certificate(&[organisation])), None);
        assert_eq!(common_name(&certificate(&[])), None);
    }

    #[test]
    fn of_two_names_none_counts() {
        let second = DnType::CustomDnType(vec![2, 5, 4, 3]);
        let der = certificate(&[(DnType::CommonName, utf8("alice")), (second, utf8("root"))]);
        assert_eq!(common_name(&der), None);
    }

    #[test]
    fn what_is_no_certificate_has_no_name() {
        let whole = certificate(&[(DnType::CommonName, utf8("alice"))]);
        for end in 0..whole.len() {
            assert_eq!(common_name(&whole[..end]), None, "{end} bytes");
        }
        let longer = [&whole[..], b"\0"].concat();
        assert_eq!(common_name(&longer), None);
    }

    #[test]
    fn the_common_name_is_found_wherever_it_stands_and_however_long_the_others_are() {
        let of = |parts: &[(DnType, &str)]| {
            let mut params = CertificateParams::default();
            params.distinguished_name = DistinguishedName::new();
            for (kind, text) in parts {
                params.distinguished_name.push(kind.clone(), *text);
            }
            let certificate = params.self_signed(&KeyPair::generate().unwrap()).unwrap();
            common_name_bytes(certificate.der()).map(|(_, name)| name)
        };
        let long = "x".repeat(300);
        assert_eq!(of(&[(DnType::CommonName, "root")]).as_deref(), Some(&b"root"[..]));
        let middle = [
            (DnType::OrganizationName, &long[..]),
            (DnType::CommonName, "root"),
            (DnType::CountryName, "DE"),
        ];
        assert_eq!(of(&middle).as_deref(), Some(&b"root"[..]));
        assert_eq!(of(&[(DnType::OrganizationName, "root")]), None);
        let second = DnType::CustomDnType(vec![2, 5, 4, 3]);
        assert_eq!(of(&[(DnType::CommonName, "root"), (second, "root")]), None, "there are two");
        for torn in [&[0x31][..], &[0x31, 0x84], &[0x31, 0x05, 0x30, 0x7f], &[0x31, 0x82, 0xff, 0xff, 0]] {
            assert_eq!(common_name_bytes(torn), None);
        }
    }
}
