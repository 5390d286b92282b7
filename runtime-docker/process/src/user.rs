//! `user[:group]` by number or by name, from `/etc/passwd` and `/etc/group`.

use std::fs;

/// Whom to run as.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct User {
    pub(crate) uid: u32,
    pub(crate) gid: u32,
}

/// Look up a user.
pub(crate) fn find(text: &str) -> Result<User, String> {
    let (user, group) = text.split_once(':').map_or((text, None), |(user, group)| (user, Some(group)));
    let passwd = fs::read_to_string("/etc/passwd").unwrap_or_default();
    let by_name = passwd.lines().find_map(|line| {
        let mut fields = line.split(':');
        let (name, uid, gid) = (fields.next()?, fields.nth(1)?, fields.next()?);
        (name == user || uid == user).then(|| Some((uid.parse().ok()?, gid.parse().ok()?)))?
    });
    let (uid, own_gid) = match (by_name, user.parse::<u32>()) {
        (Some(found), _) => found,
        // As with containers, a number needs no entry.
        (None, Ok(uid)) => (uid, 0),
        (None, Err(_)) => return Err(format!("user: {user:?} is not known on this host")),
    };
    let gid = match group {
        None => own_gid,
        Some(group) => find_group(group)?,
    };
    Ok(User { uid, gid })
}

fn find_group(group: &str) -> Result<u32, String> {
    if let Ok(gid) = group.parse() {
        return Ok(gid);
    }
    let groups = fs::read_to_string("/etc/group").unwrap_or_default();
    let gid = groups.lines().find_map(|line| {
        let mut fields = line.split(':');
        (fields.next()? == group).then(|| fields.nth(1)?.parse().ok())?
    });
    gid.ok_or_else(|| format!("user: the group {group:?} is not known on this host"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn users_are_found_by_name_and_number() {
        assert_eq!(find("root"), Ok(User { uid: 0, gid: 0 }));
        assert_eq!(find("root:7"), Ok(User { uid: 0, gid: 7 }));
        assert_eq!(find("root:root"), Ok(User { uid: 0, gid: 0 }));
        assert_eq!(find("54321"), Ok(User { uid: 54321, gid: 0 }));
        assert!(find("no-such-user").unwrap_err().contains("no-such-user"));
        assert!(find("root:no-such-group").unwrap_err().contains("no-such-group"));
    }
}
