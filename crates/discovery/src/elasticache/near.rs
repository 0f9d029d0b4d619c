//! Help for a name that does not exist: the names that do, nearest first.

/// How many names help rather than bury.
const SHOWN: usize = 5;

/// `near: my-cluster, my-cluster-2`, or what there is if nothing is near.
pub(crate) fn hint<'a>(wrong: &str, names: impl Iterator<Item = &'a str>) -> String {
    let mut names: Vec<(usize, &str)> = names
        .map(|name| (strsim::damerau_levenshtein(&wrong.to_lowercase(), &name.to_lowercase()), name))
        .collect();
    if names.is_empty() {
        return "there are none".to_owned();
    }
    names.sort();
    let near = |(distance, name): &&(usize, &str)| {
        *distance <= (wrong.len() / 3).max(2) || name.contains(wrong) || wrong.contains(name)
    };
    let close: Vec<&str> = names.iter().filter(near).take(SHOWN).map(|(_, name)| *name).collect();
    if !close.is_empty() {
        return format!("near: {}", close.join(", "));
    }
    let shown: Vec<&str> = names.iter().take(SHOWN).map(|(_, name)| *name).collect();
    match names.len() - shown.len() {
        0 => format!("there are: {}", shown.join(", ")),
        more => format!("there are: {} and {more} more", shown.join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use super::hint;

    #[test]
    fn a_slip_of_the_finger_finds_its_name() {
        let names = ["my-cluster", "sessions", "carts"];
        assert_eq!(hint("my-clutser", names.into_iter()), "near: my-cluster");
        assert_eq!(hint("Sessions", names.into_iter()), "near: sessions");
        assert_eq!(hint("my-cluster-001", names.into_iter()), "near: my-cluster");
    }

    #[test]
    fn where_nothing_is_near_some_names_are_shown() {
        assert_eq!(hint("zzz", ["my-cluster", "sessions"].into_iter()), "there are: sessions, my-cluster");
        assert_eq!(hint("zzz", [].into_iter()), "there are none");
        let names: Vec<String> = (0..9).map(|n| format!("cluster-{n}")).collect();
        assert!(hint("zzz", names.iter().map(String::as_str)).ends_with("cluster-4 and 4 more"));
    }
}
