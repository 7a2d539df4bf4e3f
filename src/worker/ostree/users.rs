//! Users and groups that packages made, as sysusers.d(5) entries with fixed ids: the tree brings
//! them along to every host state that it is booted into.

use std::collections::BTreeSet;
use std::fmt::Write;

/// A fragment that makes what `after` has and `before` has not; none when there is nothing.
pub(super) fn fragment(before: &Accounts, after: &Accounts) -> Option<String> {
    let old_groups: BTreeSet<&str> = before.groups.iter().map(|group| &*group.name).collect();
    let old_users: BTreeSet<&str> = before.users.iter().map(|user| &*user.name).collect();
    let old_members: BTreeSet<(&str, &str)> = before.members().collect();
    let mut text = String::new();
    // Groups first: users name them by their number.
    for group in after.groups.iter().filter(|group| !old_groups.contains(&*group.name)) {
        line(&mut text, format_args!("g {} {}", group.name, group.id));
    }
    for user in after.users.iter().filter(|user| !old_users.contains(&*user.name)) {
        let User { name, id, group, comment, home, shell } = user;
        line(&mut text, format_args!("u {name} {id}:{group} {} {home} {shell}", quoted(comment)));
    }
    for (user, group) in after.members().filter(|pair| !old_members.contains(pair)) {
        line(&mut text, format_args!("m {user} {group}"));
    }
    (!text.is_empty()).then_some(text)
}

/// What `/etc/passwd` and `/etc/group` say: passwd(5), group(5).
#[derive(Debug, Default)]
pub(super) struct Accounts {
    users: Vec<User>,
    groups: Vec<Group>,
}

#[derive(Debug)]
struct User {
    name: String,
    id: u32,
    group: u32,
    comment: String,
    home: String,
    shell: String,
}

#[derive(Debug)]
struct Group {
    name: String,
    id: u32,
    members: Vec<String>,
}

impl Accounts {
    /// Reads both files' texts; lines that sysusers.d(5) could not repeat are passed over.
    pub(super) fn parse(passwd: &str, group: &str) -> Self {
        Self {
            users: passwd.lines().filter_map(parse_user).collect(),
            groups: group.lines().filter_map(parse_group).collect(),
        }
    }

    fn members(&self) -> impl Iterator<Item = (&str, &str)> {
        self.groups
            .iter()
            .flat_map(|group| group.members.iter().map(|member| (&**member, &*group.name)))
    }
}

fn parse_user(line: &str) -> Option<User> {
    let fields: Vec<&str> = line.split(':').collect();
    let [name, _, id, group, comment, home, shell] = fields[..] else { return None };
    let path = |text: &str| text.starts_with('/') && is_word(text);
    Some(User {
        name: Some(name).filter(|name| is_name(name))?.to_owned(),
        id: id.parse().ok()?,
        group: group.parse().ok()?,
        comment: comment.to_owned(),
        home: if path(home) { home } else { "-" }.to_owned(),
        shell: if path(shell) { shell } else { "-" }.to_owned(),
    })
}

fn parse_group(line: &str) -> Option<Group> {
    let fields: Vec<&str> = line.split(':').collect();
    let [name, _, id, members] = fields[..] else { return None };
    Some(Group {
        name: Some(name).filter(|name| is_name(name))?.to_owned(),
        id: id.parse().ok()?,
        members: members.split(',').filter(|name| is_name(name)).map(str::to_owned).collect(),
    })
}

fn is_name(text: &str) -> bool {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"_-.".contains(&byte);
    !text.is_empty() && !text.starts_with('-') && text.bytes().all(allowed)
}

fn is_word(text: &str) -> bool {
    text.bytes().all(|byte| byte.is_ascii_graphic() && !b"\"'%\\".contains(&byte))
}

fn quoted(comment: &str) -> String {
    let plain: String = comment
        .chars()
        .filter(|letter| !letter.is_control() && !"\"\\%:".contains(*letter))
        .collect();
    if plain.is_empty() { "-".to_owned() } else { format!("\"{plain}\"") }
}

fn line(text: &mut String, arguments: std::fmt::Arguments<'_>) {
    // Writing to a String cannot fail.
    writeln!(text, "{arguments}").unwrap_or_default();
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn new_accounts_and_memberships_become_entries_with_fixed_ids() {
        let before = Accounts::parse("root:x:0:0:root:/root:/bin/bash\n", "root:x:0:\nadm:x:4:\n");
        let after = Accounts::parse(
            "root:x:0:0:root:/root:/bin/bash\nweb:x:33:34:the \"web\":/var/www:/usr/sbin/nologin\n",
            "root:x:0:\nadm:x:4:web\nwww:x:34:\n",
        );
        assert_eq!(
            fragment(&before, &after).unwrap(),
            "g www 34\nu web 33:34 \"the web\" /var/www /usr/sbin/nologin\nm web adm\n"
        );
    }

    #[test]
    fn nothing_new_is_no_fragment() {
        let text = ("a:x:1:1:::\n", "a:x:1:\n");
        let accounts = || Accounts::parse(text.0, text.1);
        assert!(fragment(&accounts(), &accounts()).is_none());
    }

    #[test]
    fn lines_that_would_say_something_else_in_sysusers_are_passed_over() {
        let none = Accounts::default();
        for hostile in
            ["a b:x:1:1::/:/", "-x:x:1:1::/:/", "a\u{1b}:x:1:1::/:/", "a:x:x:1::/:/", "a"]
        {
            assert!(fragment(&none, &Accounts::parse(hostile, "")).is_none(), "{hostile:?}");
        }
        let odd = Accounts::parse("a:x:1:2::/home/%u:rel\n", "");
        assert_eq!(fragment(&none, &odd).unwrap(), "u a 1:2 - - -\n");
    }
}
