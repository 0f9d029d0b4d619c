//! What AWS says of this host: may it ask, is its clock right, is it where it has to be?

use discovery::{Action, CacheLocation, Cause, InstanceFacts, Survey};

use crate::Finding;

/// Clocks that differ by less do so for the seconds that an answer takes.
const CLOCK_WARN: u64 = 10;

/// AWS refuses signatures that are 5 minutes old or young (Signature Version 4).
const CLOCK_FAIL: u64 = 300;

const CLOCK_REMEDY: &str = "set this host's clock: 'timedatectl set-ntp true', and see 'chronyc tracking' (AWS's time server is \
     169.254.169.123)";

/// Whether every call that the sources need is allowed, and answered.
pub fn calls(survey: &Survey) -> Vec<Finding> {
    let mut found = Vec::new();
    let mut told = Vec::new();
    for (action, cause) in survey.calls.iter().filter_map(|(action, how)| Some((action, how.as_ref().err()?)))
    {
        match cause {
            Cause::AccessDenied { message, .. } => {
                let what = format!("elasticache:{action} is denied ({message})");
                let remedy = "allow it in the IAM policy of this instance's role";
                found.push(match action {
                    Action::DescribeCacheSubnetGroups => {
                        let what = format!("{what}, so that VPC and subnets can't be compared");
                        Finding::warn("permissions", what, remedy)
                    }
                    _ => Finding::fail("permissions", what, remedy),
                });
            }
            // The clock has a line of its own, and a cache that is gone its source's.
            Cause::Clock { .. } | Cause::NotFound { .. } => {}
            // One cause keeps several calls from being made.
            cause if told.contains(cause) => {}
            cause => {
                told.push(cause.clone());
                found.push(unanswered(*action, cause));
            }
        }
    }
    if survey.calls.values().all(Result::is_ok) {
        let calls: Vec<String> = survey.calls.keys().map(ToString::to_string).collect();
        let what = format!("{} are allowed in {}", calls.join(", "), survey.region);
        found.push(Finding::ok("permissions", what));
    }
    found
}

fn unanswered(action: Action, cause: &Cause) -> Finding {
    let what = format!("{action}: {cause}");
    let name = "AWS API";
    match cause {
        Cause::Connection { message } if message.contains("certificate") => {
            // A clock that is years off fails here, before any answer could tell the time.
            let is_of_time = ["Expired", "expired", "NotValidYet", "not valid yet"];
            let remedy = match is_of_time.iter().any(|word| message.contains(word)) {
                true => CLOCK_REMEDY,
                false => "install the package ca-certificates, or see who stands between this host and AWS",
            };
            Finding::fail(name, what, remedy)
        }
        Cause::Timeout { .. } | Cause::Connection { .. } => {
            let remedy = "see whether this subnet leads to the internet or has a VPC endpoint for ElastiCache, \
                          and whether DNS answers";
            Finding::fail(name, what, remedy)
        }
        Cause::Throttled { .. } => {
            Finding::warn(name, what, "ask more seldom: watch --interval, or the timer")
        }
        // These name their remedy themselves.
        _ => Finding { remedy: None, ..Finding::fail(name, what, "") },
    }
}

/// Whether this host's clock agrees with AWS's; `None` where no answer told the time.
pub fn clock(survey: &Survey) -> Option<Finding> {
    let name = "clock";
    let remedy = CLOCK_REMEDY;
    let refused = survey.calls.values().find_map(|how| match how {
        Err(cause @ Cause::Clock { .. }) => Some(cause),
        _ => None,
    });
    let Some(ahead) = survey.clock_ahead else {
        return refused.map(|cause| Finding::fail(name, cause.to_string(), remedy));
    };
    let (by, which) = (ahead.unsigned_abs(), if ahead > 0 { "ahead of" } else { "behind" });
    let what = format!("this host's is {by} s {which} AWS's");
    Some(match by {
        _ if refused.is_some() => Finding::fail(name, what + ", which refuses its requests", remedy),
        CLOCK_FAIL.. => Finding::fail(name, what + ", which refuses requests that are 5 minutes off", remedy),
        CLOCK_WARN.. => Finding::warn(name, what, remedy),
        _ => Finding::ok(name, format!("this host's agrees with AWS's within {CLOCK_WARN} s")),
    })
}

/// Whether the caches are in this instance's VPC, and in subnets other than its own; nothing where that is not known.
pub fn places(places: &[CacheLocation], vpc: Option<&str>, subnet: Option<&str>) -> Vec<Finding> {
    let mut found = Vec::new();
    let vpcs = || places.iter().filter_map(|place| Some((&place.cache, place.vpc.as_deref()?)));
    if let Some(own) = vpc.filter(|_| vpcs().next().is_some()) {
        found.push(match vpcs().find(|(_, vpc)| *vpc != own) {
            None => Finding::ok("VPC", format!("every cache is in {own}, as this instance is")),
            Some((cache, other)) => Finding::warn(
                "VPC",
                format!("{cache} is in {other}, and this instance in {own}"),
                "run cachenat on an instance in the cache's VPC, or see to peering and routes",
            ),
        });
    }
    if let Some(own) = subnet.filter(|_| !places.is_empty()) {
        found.push(match places.iter().find(|place| place.subnets.iter().any(|subnet| subnet == own)) {
            None => Finding::ok("subnet", format!("no cache is in {own}, this instance's own")),
            Some(CacheLocation { cache, .. }) => Finding::warn(
                "subnet",
                format!("{cache} may have nodes in {own}, this instance's own, which is public"),
                "run cachenat in a public subnet of its own, or take that subnet out of the cache's subnet group",
            ),
        });
    }
    found
}

/// Whether instance metadata gives the VPC a range that AWS would not.
pub fn incredible_vpc(facts: &InstanceFacts) -> Option<Finding> {
    let range = facts.incredible_ranges().next()?;
    let what = format!(
        "instance metadata says that {range} is the VPC, which is larger than AWS allows (/16, IPv6 /44), and is not believed"
    );
    Some(Finding::warn("instance metadata", what, "find out what answers for 169.254.169.254 on this host"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Level::{Fail, Ok as Fine, Warn};
    use crate::{Level, text};

    fn survey(calls: Vec<(Action, Result<(), Cause>)>, clock_ahead: Option<i64>) -> Survey {
        let (region, calls) = ("us-east-2".to_owned(), calls.into_iter().collect());
        Survey { region, calls, clock_ahead, places: vec![] }
    }

    fn denied(action: Action) -> (Action, Result<(), Cause>) {
        (action, Err(Cause::AccessDenied { action, message: "no".to_owned() }))
    }

    #[test]
    fn each_action_that_is_denied_is_named() {
        let all = survey(vec![(Action::DescribeCacheClusters, Ok(()))], None);
        assert_eq!(text(&calls(&all)), "ok    permissions: DescribeCacheClusters are allowed in us-east-2\n");
        let some = survey(
            vec![
                denied(Action::DescribeServerlessCaches),
                denied(Action::DescribeCacheSubnetGroups),
                (Action::DescribeCacheClusters, Ok(())),
            ],
            None,
        );
        let found = calls(&some);
        assert_eq!(found.iter().map(|finding| finding.verdict).collect::<Vec<_>>(), [Fail, Warn]);
        assert!(found[0].what.starts_with("elasticache:DescribeServerlessCaches is denied"), "{found:?}");
    }

    #[test]
    fn what_keeps_every_call_from_being_answered_is_told_once() {
        let no_region = || Err(Cause::NoRegion);
        let found = calls(&survey(
            vec![
                (Action::DescribeCacheClusters, no_region()),
                (Action::DescribeReplicationGroups, no_region()),
            ],
            None,
        ));
        assert!(matches!(&found[..], [Finding { verdict: Fail, remedy: None, .. }]), "{found:?}");
    }

    #[test]
    fn a_connection_that_fails_points_at_the_network_the_authorities_or_the_clock() {
        let remedy = |message: &str| {
            let failed = Err(Cause::Connection { message: message.to_owned() });
            let found = calls(&survey(vec![(Action::DescribeCacheClusters, failed)], None));
            assert_eq!(found[0].verdict, Fail);
            found[0].remedy.clone().unwrap()
        };
        assert!(remedy("Connection refused (os error 111)").contains("VPC endpoint"));
        assert!(remedy("invalid peer certificate: UnknownIssuer").contains("ca-certificates"));
        assert!(
            remedy("invalid peer certificate: certificate expired: verification time 7")
                .contains("timedatectl")
        );
    }

    #[test]
    fn a_clock_is_warned_of_from_ten_seconds_and_wrong_from_five_minutes() {
        let verdict = |ahead| clock(&survey(vec![], Some(ahead))).map(|finding| finding.verdict);
        let verdicts: Vec<Option<Level>> = [9, -9, 10, -10, 299, 300, -300].map(verdict).into();
        assert_eq!(verdicts, [Fine, Fine, Warn, Warn, Warn, Fail, Fail].map(Some));
        assert_eq!(clock(&survey(vec![], None)), None);
        let refused = Err(Cause::Clock { message: "Signature expired".to_owned() });
        let found = clock(&survey(vec![(Action::DescribeCacheClusters, refused)], Some(-12))).unwrap();
        assert_eq!((found.verdict, found.what.contains("12 s behind")), (Fail, true), "{found:?}");
    }

    #[test]
    fn a_vpc_larger_than_aws_allows_is_found() {
        let facts =
            |range: &str| InstanceFacts { vpc_cidrs: vec![range.parse().unwrap()], ..Default::default() };
        assert_eq!(incredible_vpc(&facts("10.0.0.0/16")), None);
        let found = incredible_vpc(&facts("0.0.0.0/0")).unwrap();
        assert_eq!((found.verdict, found.what.contains("0.0.0.0/0 is the VPC")), (Warn, true));
    }

    #[test]
    fn another_vpc_and_the_own_subnet_are_found() {
        let place = |vpc: Option<&str>, subnets: &[&str]| CacheLocation {
            cache: "my-cluster-001".to_owned(),
            vpc: vpc.map(str::to_owned),
            subnets: subnets.iter().map(|&subnet| subnet.to_owned()).collect(),
        };
        let verdicts = |place: &[CacheLocation]| -> Vec<Level> {
            places(place, Some("vpc-a"), Some("subnet-a")).iter().map(|finding| finding.verdict).collect()
        };
        assert_eq!(verdicts(&[place(Some("vpc-a"), &["subnet-b"])]), [Fine, Fine]);
        assert_eq!(verdicts(&[place(Some("vpc-b"), &["subnet-b"])]), [Warn, Fine]);
        assert_eq!(verdicts(&[place(Some("vpc-a"), &["subnet-b", "subnet-a"])]), [Fine, Warn]);
        assert_eq!(verdicts(&[place(None, &["subnet-b"])]), [Fine], "a serverless cache tells no VPC");
        assert!(places(&[place(Some("vpc-b"), &["subnet-a"])], None, None).is_empty());
    }
}
