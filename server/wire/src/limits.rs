//! The limits of requirements A2 and A3, each with its reason, and the validation of names.

/// Longest cluster or group name in bytes [2.2.2.3].
pub const NAME_BYTES_MAX: usize = 15;
/// Longest server name in bytes [2.2.2.3].
pub const SERVER_NAME_BYTES_MAX: usize = 15;
/// Groups of one cluster [2.2.2].
pub const GROUPS_MAX: usize = 64;
/// Floating IPs of one cluster [2.2.2].
pub const FLOATING_IPS_MAX: usize = 64;
/// Mirror sets of one cluster [2.2.2].
pub const MIRROR_SETS_MAX: usize = 8;
/// Addresses of one NBD export: the 16 addresses of a server (A3).
pub const EXPORT_ADDRESSES_MAX: usize = 16;
/// Interconnects of one cluster [2.2.2]; A6 asks for at least two.
pub const INTERCONNECTS_MAX: usize = 16;
/// Events kept in a view: one screen of the rail; the store keeps more.
pub const VIEW_EVENTS_MAX: usize = 30;
/// A script's size: more is a program and belongs on the disk.
pub const SCRIPT_BYTES_MAX: usize = 64 * 1024;
/// Names that DOS reserves; a group may not bear one (A2).
pub const DEVICE_NAMES: [&str; 4] = ["PRN", "CON", "AUX", "NUL"];

/// Why a name is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NameFault {
    /// Empty or longer than the limit in bytes.
    Length,
    /// A byte outside `A-Za-z0-9-_` (server names: also no `_`, no `-` at either end).
    Character,
    /// A DOS device name.
    Reserved,
}

/// Checks a cluster or group name (A2).
pub fn check_name(name: &str) -> Result<(), NameFault> {
    if name.is_empty() || name.len() > NAME_BYTES_MAX {
        return Err(NameFault::Length);
    }
    if !name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_') {
        return Err(NameFault::Character);
    }
    let upper = name.to_ascii_uppercase();
    let numbered = (upper.starts_with("COM") || upper.starts_with("LPT"))
        && upper.len() == 4
        && upper.as_bytes().get(3).is_some_and(|b| (b'1'..=b'9').contains(b));
    if numbered || DEVICE_NAMES.contains(&upper.as_str()) {
        return Err(NameFault::Reserved);
    }
    Ok(())
}

/// Checks a server name: host-name rules, at most 15 bytes (A2).
pub fn check_server_name(name: &str) -> Result<(), NameFault> {
    if name.is_empty() || name.len() > SERVER_NAME_BYTES_MAX {
        return Err(NameFault::Length);
    }
    let inner = name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-');
    if !inner || name.starts_with('-') || name.ends_with('-') {
        return Err(NameFault::Character);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_follow_a2() {
        for good in ["a", "files", "db_2", "x-1", "COM", "COM10", "abcdefghijklmno"] {
            assert_eq!(check_name(good), Ok(()), "{good}");
        }
        for (bad, fault) in [
            ("", NameFault::Length),
            ("abcdefghijklmnop", NameFault::Length),
            ("a b", NameFault::Character),
            ("\u{3042}", NameFault::Character),
            ("con", NameFault::Reserved),
            ("Lpt9", NameFault::Reserved),
        ] {
            assert_eq!(check_name(bad), Err(fault), "{bad}");
        }
        assert_eq!(check_server_name("server-1"), Ok(()));
        assert_eq!(check_server_name("-x"), Err(NameFault::Character));
        assert_eq!(check_server_name("a_b"), Err(NameFault::Character));
    }
}
