//! The field tables: what each id is called, whether it may repeat, and how
//! its length is written (reference §2.2, §2.4; deviations of §0.1).

use super::{Dialect, Kind};

/// How the bytes after a field's id are laid out. Lengths are big-endian.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Layout {
    /// No length: 64 bytes, an Ed25519 signature.
    Signature,
    /// One length byte.
    Short,
    /// Two length bytes.
    Medium,
    /// Three length bytes.
    Long,
    /// One length byte and a name, then two length bytes and data.
    Named,
}

/// One row of a field table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rule {
    pub name: &'static str,
    pub unique: bool,
    pub layout: Layout,
}

pub const SIGNING_KEY: u8 = 1;
/// Org signets only.
pub const SECONDARY_KEY: u8 = 2;
pub const ORG_ENCRYPTION_KEY: u8 = 3;
pub const ORG_CRYPTO_SIGNATURE: u8 = 4;
/// User signets and requests.
pub const USER_ENCRYPTION_KEY: u8 = 2;
pub const ALTERNATE_KEY: u8 = 3;
pub const CUSTODY: u8 = 4;
pub const SSR_SIGNATURE: u8 = 5;
/// User signets only.
pub const USER_CRYPTO_SIGNATURE: u8 = 6;
pub const UNDEFINED: u8 = 251;
pub const PHOTO: u8 = 252;
pub const FULL_SIGNATURE: u8 = 253;
pub const IDENTIFIER: u8 = 254;
pub const ID_SIGNATURE: u8 = 255;

const fn one(name: &'static str, layout: Layout) -> Option<Rule> {
    Some(Rule { name, unique: true, layout })
}

const fn many(name: &'static str, layout: Layout) -> Option<Rule> {
    Some(Rule { name, unique: false, layout })
}

/// The row for `id`, or `None` where the id is not allowed (rule `A9`).
pub fn rule(kind: Kind, dialect: Dialect, id: u8) -> Option<Rule> {
    let rule = match kind {
        Kind::Org => org(dialect, id),
        Kind::User => user(dialect, id),
        Kind::Ssr => request(dialect, id),
    };
    match dialect {
        Dialect::P => rule.filter(|_| in_p(kind, id)),
        Dialect::L | Dialect::M => rule,
    }
}

/// The only ids that dialect P understands; it drops the others when it
/// re-serializes, so a signet with more is two signets (rule `A9`).
fn in_p(kind: Kind, id: u8) -> bool {
    match kind {
        Kind::Org => matches!(id, 1 | 3 | 4),
        Kind::User => matches!(id, 1 | 2 | 4..=6),
        Kind::Ssr => matches!(id, 1 | 2 | 4 | 5),
    }
}

/// Two bytes in L, one in M and P.
fn key_length(dialect: Dialect) -> Layout {
    match dialect {
        Dialect::L => Layout::Medium,
        Dialect::M | Dialect::P => Layout::Short,
    }
}

fn org(dialect: Dialect, id: u8) -> Option<Rule> {
    use Layout::{Medium, Short, Signature};
    match id {
        1 => one("Primary-Organizational-Key", Short),
        2 => many("Secondary-Organizational-Key", Short),
        3 => one("Encryption-Key", key_length(dialect)),
        4 => one("Organizational-Signature", Signature),
        200 => one("Contact-Abuse", Medium),
        201 => one("Contact-Admin", Medium),
        202 => one("Contact-Support", Medium),
        203 => one("Web-Access-Host", Medium),
        204 => one("Web-Access-Location", Medium),
        205 => one("Web-Access-Certificate", Medium),
        206 => one("Mail-Access-Host", Medium),
        207 => one("Mail-Access-Certificate", Medium),
        208 => one("Onion-Access-Host", Medium),
        209 => one("Onion-Access-Certificate", Medium),
        210 => one("Onion-Delivery-Host", Medium),
        211 => one("Onion-Delivery-Certificate", Medium),
        _ => shared(id),
    }
}

fn user(dialect: Dialect, id: u8) -> Option<Rule> {
    use Layout::{Medium, Short, Signature};
    match id {
        1 => one("Signing-Key", Short),
        2 => one("Encryption-Key", key_length(dialect)),
        3 => many("Alternate-Encryption-Key", key_length(dialect)),
        4 => one("Custody", Signature),
        5 => one("User-Signature", Signature),
        6 => one("Organizational-Signature", Signature),
        93 => one("Supported-Codecs", Short),
        94 => one("Title", Short),
        95 => one("Employer", Short),
        96 => one("Gender", Short),
        97 => one("Alma-Mater", Short),
        98 => one("Supervisor", Short),
        99 => one("Political-Party", Short),
        200 => one("Alternate-Address", Medium),
        201 => one("Resume", Medium),
        202 => many("Endorsements", Medium),
        _ => shared(id),
    }
}

/// L writes the alternate key of a request with one length byte, and that of a
/// user signet with two: a bug of its table that is part of the format now.
fn request(dialect: Dialect, id: u8) -> Option<Rule> {
    match id {
        3 => many("Alternate-Encryption-Key", Layout::Short),
        1 | 2 | 4 | 5 => user(dialect, id),
        _ => None,
    }
}

/// Fields that org and user signets have in common.
fn shared(id: u8) -> Option<Rule> {
    use Layout::{Long, Medium, Named, Short, Signature};
    match id {
        16 => one("Name", Short),
        17 => one("Address", Short),
        18 => one("Province", Short),
        19 => one("Country", Short),
        20 => one("Postal-Code", Short),
        21 => many("Phone-Number", Short),
        22 => one("Language", Short),
        23 => one("Currency", Short),
        24 => one("Cryptocurrency", Short),
        25 => one("Motto", Short),
        26 => one("Extensions", Short),
        27 => one("Message-Size-Limit", Short),
        160 => one("Website", Medium),
        UNDEFINED => many("Undefined-Field", Named),
        PHOTO => one("Photo", Long),
        FULL_SIGNATURE => one("Organizational-Signature-Full", Signature),
        IDENTIFIER => one("Signet-Identifier", Short),
        ID_SIGNATURE => one("Organizational-Signature-ID", Signature),
        _ => None,
    }
}

/// The id of the field that `name` names in `kind`, without regard to case:
/// how the command line lets a person say `Name=Example`.
pub fn id_of(kind: Kind, name: &str) -> Option<u8> {
    (0..=u8::MAX).find(|id| {
        rule(kind, Dialect::L, *id).is_some_and(|rule| rule.name.eq_ignore_ascii_case(name))
    })
}

/// Whether the data of `id` is meant to be read as UTF-8.
pub fn is_text(id: u8) -> bool {
    matches!(id, 16..=250 | IDENTIFIER)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn allowed(kind: Kind) -> Vec<u8> {
        (0..=u8::MAX).filter(|id| rule(kind, Dialect::L, *id).is_some()).collect()
    }

    #[test]
    fn tables_hold_exactly_the_ids_of_the_reference() {
        let org: Vec<u8> =
            (1..=4).chain(16..=27).chain([160]).chain(200..=211).chain(251..=255).collect();
        let user: Vec<u8> = (1..=6)
            .chain(16..=27)
            .chain(93..=99)
            .chain([160])
            .chain(200..=202)
            .chain(251..=255)
            .collect();
        assert_eq!(allowed(Kind::Org), org);
        assert_eq!(allowed(Kind::User), user);
        assert_eq!(allowed(Kind::Ssr), [1, 2, 3, 4, 5]);
    }

    #[test]
    fn length_bytes_follow_the_dialect() {
        let layout = |kind, dialect, id| rule(kind, dialect, id).unwrap().layout;
        assert_eq!(layout(Kind::Org, Dialect::L, 3), Layout::Medium);
        assert_eq!(layout(Kind::Org, Dialect::M, 3), Layout::Short);
        assert_eq!(layout(Kind::User, Dialect::L, 3), Layout::Medium);
        assert_eq!(layout(Kind::Ssr, Dialect::L, 3), Layout::Short);
        assert_eq!(layout(Kind::User, Dialect::P, 2), Layout::Short);
        assert!(rule(Kind::User, Dialect::P, 16).is_none());
    }

    #[test]
    fn names_lead_back_to_ids() {
        assert_eq!(id_of(Kind::Org, "name"), Some(16));
        assert_eq!(id_of(Kind::User, "Endorsements"), Some(202));
        assert_eq!(id_of(Kind::Ssr, "name"), None);
    }
}
