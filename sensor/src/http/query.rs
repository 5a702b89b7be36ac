//! What stands behind the `?` of an address.

use jiff::Timestamp;
use percent_encoding::percent_decode_str;

use crate::logins::{ANSWER_MAX, Query};

/// Logins in an answer where no number is asked for.
const LOGINS: usize = 1000;

/// Reads `since=TIME&user=NAME&limit=N`, each of them optional; an error says the remedy.
pub(super) fn logins(raw: &str) -> Result<Query, String> {
    let mut query = Query { since: None, user: None, limit: LOGINS };
    for pair in raw.split('&').filter(|pair| !pair.is_empty()) {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        let value = decoded(value)?;
        match name {
            "since" => query.since = Some(time(&value)?),
            "user" => query.user = Some(value),
            "limit" => query.limit = limit(&value)?,
            _ => return Err("known here: since, user, limit".to_owned()),
        }
    }
    Ok(query)
}

/// As forms write it: a blank may be a plus sign.
fn decoded(value: &str) -> Result<String, String> {
    let value = value.replace('+', " ");
    let decoded = percent_decode_str(&value).decode_utf8();
    decoded.map(Into::into).map_err(|_| "a value is not UTF-8".to_owned())
}

fn time(value: &str) -> Result<Timestamp, String> {
    let remedy = "since is a time of RFC 3339, like 2026-11-21T10:00:00Z";
    value.parse().map_err(|_| remedy.to_owned())
}

fn limit(value: &str) -> Result<usize, String> {
    let number = value.parse().ok().filter(|number| (1..=ANSWER_MAX).contains(number));
    number.ok_or_else(|| format!("limit is a whole number from 1 to {ANSWER_MAX}"))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn every_part_is_optional_and_escapes_are_undone() {
        assert_eq!(logins(""), Ok(Query { since: None, user: None, limit: LOGINS }));
        let query = logins("user=J%C3%BCrgen+%26%20Co&limit=7&since=2026-11-21T10:00:00%2B01:00");
        let query = query.unwrap();
        assert_eq!((query.user.as_deref(), query.limit), (Some("Jürgen & Co"), 7));
        assert_eq!(query.since, Some("2026-11-21T09:00:00Z".parse().unwrap()));
    }

    #[test]
    fn what_is_wrong_is_told_with_the_remedy() {
        for (raw, remedy) in [
            ("since=yesterday", "RFC 3339"),
            ("limit=0", "from 1 to 20000"),
            ("limit=20001", "from 1 to 20000"),
            ("limit=-1", "from 1 to 20000"),
            ("user=%ff", "UTF-8"),
            ("users=a", "known here: since, user, limit"),
        ] {
            let told = logins(raw).unwrap_err();
            assert!(told.contains(remedy), "{raw}: {told}");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_read_or_refused(raw in "[ -~]{0,60}") {
            let _ = logins(&raw);
        }

        #[test]
        fn any_name_comes_through(name in any::<String>()) {
            let raw = format!("user={}", crate::http::client::encoded(&name));
            prop_assert_eq!(logins(&raw).unwrap().user, Some(name));
        }
    }
}
