//! How far up from a name its records may come: to the public-suffix boundary
//! (reference §1.7).
//!
//! The list (publicsuffix.org, ICANN and private parts) is that of the `psl`
//! crate as built: a suffix that is newer counts as a label under its parent.

use super::Domain;

/// Most ancestors of one name, so that a deep name costs no more questions than
/// these. Of a deeper one those next to the boundary count.
pub const MAX_ANCESTORS: usize = 8;

/// The domains above `domain`, nearest first, the last one registered directly
/// under a public suffix. None for such a domain itself, and for a suffix.
pub fn ancestors(domain: &Domain) -> Vec<Domain> {
    let Some(registered) = psl::domain_str(domain.as_str()) else { return Vec::new() };
    let mut above = Vec::new();
    let mut next = domain.clone();
    while next.as_str().len() > registered.len() {
        let Some(parent) = next.parent() else { break };
        above.push(parent.clone());
        next = parent;
    }
    let too_many = above.len().saturating_sub(MAX_ANCESTORS);
    above.split_off(too_many)
}

/// The domain that somebody registered: this one, or the last of those above it.
pub fn registered(domain: &Domain) -> Domain {
    ancestors(domain).pop().unwrap_or_else(|| domain.clone())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn above(domain: &str) -> Vec<String> {
        ancestors(&domain.parse().unwrap()).iter().map(Domain::to_string).collect()
    }

    #[test]
    fn the_walk_ends_at_the_public_suffix() {
        assert_eq!(above("a.b.example.co.uk"), ["b.example.co.uk", "example.co.uk"]);
        assert_eq!(above("example.co.uk"), [""; 0]);
        assert_eq!(above("co.uk"), [""; 0]);
        // Customers of one host are strangers to each other.
        assert_eq!(above("tenant.github.io"), [""; 0]);
        assert_eq!(above("mail.tenant.github.io"), ["tenant.github.io"]);
        // Rules in A-labels, wildcards, exceptions, and what no rule names.
        assert_eq!(above("x.foo.xn--55qx5d.cn"), ["foo.xn--55qx5d.cn"]);
        assert_eq!(above("a.b.ck"), [""; 0]);
        assert_eq!(above("a.www.ck"), ["www.ck"]);
        assert_eq!(above("a.b.nosuchtld"), ["b.nosuchtld"]);
    }

    #[test]
    fn a_deep_name_has_no_more_ancestors_than_are_asked() {
        let deep = format!("{}example.com", "x.".repeat(100));
        let above = above(&deep);
        assert_eq!(above.len(), MAX_ANCESTORS);
        assert_eq!(above.last().unwrap(), "example.com");
        assert_eq!(registered(&deep.parse().unwrap()).as_str(), "example.com");
        assert_eq!(registered(&"example.co.uk".parse().unwrap()).as_str(), "example.co.uk");
    }
}
