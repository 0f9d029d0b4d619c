//! The Query API: one action per POST, XML back.

use std::{
    sync::Mutex,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use aws_smithy_types::{DateTime, date_time::Format};
use serde_json::{Value, json};

use super::{
    Call, How, Response, Scenario, State,
    http::{Message, Request},
    lock, shapes, xml,
};

const NAMESPACE: &str = "http://elasticache.amazonaws.com/doc/2015-02-02/";

/// An error of the Query protocol: status, code, message.
type Refusal = (u16, &'static str, String);

pub(super) fn respond(request: &Request, state: &Mutex<State>) -> Response {
    let mut state = lock(state);
    let action = request.form.get("Action").cloned().unwrap_or_default();
    let page = Page::of(request, &state.scenario);
    let region = signed_region(request);
    state.calls.push(Call {
        action: action.clone(),
        page: page.number(),
        region: region.clone().unwrap_or_default(),
    });

    let mut how = state.scenario.fault(&action, page.number());
    if let Some(How::Becomes(scenario)) = how {
        state.scenario = *scenario;
        how = None;
    }
    let scenario = &state.scenario;
    let answered = match &how {
        Some(How::Error { status, code, message }) => Err((*status, code.as_str(), message.clone())),
        _ => check(request, region.as_deref(), scenario)
            .and_then(|()| answer(&action, request, &page, scenario)),
    };
    let mut message = match answered {
        Ok(result) => message(200, "text/xml", &success(&action, &result), scenario),
        Err((status, code, words)) => message(status, "text/xml", &error(code, &words), scenario),
    };
    match &how {
        Some(How::Body { body }) => message.body.clone_from(body),
        Some(How::Html) => {
            message = self::message(500, "text/html", "<html><body><h1>500</h1>&nbsp;</body>", scenario);
        }
        Some(How::HalfXml) => message.body.truncate(message.body.len() / 2),
        _ => {}
    }
    Response { after: Duration::from_millis(scenario.delay_ms), message, how }
}

/// The region of `Credential=AKID/20260101/us-east-2/elasticache/aws4_request`.
fn signed_region(request: &Request) -> Option<String> {
    let authorization = request.headers.get("authorization")?;
    let scope = authorization.split_once("Credential=")?.1.split(',').next()?;
    let mut parts = scope.split('/').skip(2);
    let (region, service) = (parts.next()?, parts.next()?);
    (service == "elasticache").then(|| region.to_owned())
}

/// The checks of AWS before it reads the action. (The signature itself is not computed.)
fn check(request: &Request, region: Option<&str>, scenario: &Scenario) -> Result<(), Refusal> {
    if region.is_none() {
        let message = "Request is missing Authentication Token".to_owned();
        return Err((403, "MissingAuthenticationToken", message));
    }
    let signed = request.headers.get("x-amz-date").and_then(|date| amz_date(date)).unwrap_or(0);
    let now = now(scenario);
    if (now - signed).abs() > 5 * 60 {
        let message = format!("Signature expired: {signed} is now earlier than {}", now - 5 * 60);
        return Err((403, "SignatureDoesNotMatch", message));
    }
    Ok(())
}

/// `20260131T120000Z` in seconds since 1970.
fn amz_date(text: &str) -> Option<i64> {
    let part = |from: usize, to: usize| text.get(from..to);
    let (date, time) = (text.get(..8)?, text.get(9..15)?);
    let iso = format!(
        "{}-{}-{}T{}:{}:{}Z",
        part(0, 4)?,
        date.get(4..6)?,
        date.get(6..8)?,
        time.get(..2)?,
        time.get(2..4)?,
        time.get(4..6)?
    );
    DateTime::from_str(&iso, Format::DateTime).ok().map(|time| time.secs())
}

/// The service's clock.
fn now(scenario: &Scenario) -> i64 {
    let here = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    i64::try_from(here).unwrap_or(i64::MAX) + scenario.clock_ahead_s
}

fn answer(action: &str, request: &Request, page: &Page, scenario: &Scenario) -> Result<Value, Refusal> {
    let wanted = |parameter: &str| request.form.get(parameter).cloned();
    match action {
        "DescribeReplicationGroups" => {
            let fault = "ReplicationGroupNotFoundFault";
            let id = wanted("ReplicationGroupId");
            let groups = named(&scenario.replication_groups, "ReplicationGroupId", id, fault)?;
            Ok(page.cut("ReplicationGroups", groups, "Marker"))
        }
        "DescribeCacheClusters" => {
            let id = wanted("CacheClusterId");
            let mut clusters = named(&scenario.cache_clusters, "CacheClusterId", id, "CacheClusterNotFound")?;
            if wanted("ShowCacheClustersNotInReplicationGroups").as_deref() == Some("true") {
                clusters.retain(|cluster| cluster.get("ReplicationGroupId").is_none());
            }
            if wanted("ShowCacheNodeInfo").as_deref() != Some("true") {
                clusters.iter_mut().filter_map(Value::as_object_mut).for_each(|cluster| {
                    cluster.remove("CacheNodes");
                });
            }
            Ok(page.cut("CacheClusters", clusters, "Marker"))
        }
        "DescribeServerlessCaches" => {
            let name = wanted("ServerlessCacheName");
            let fault = "ServerlessCacheNotFoundFault";
            let caches = named(&scenario.serverless_caches, "ServerlessCacheName", name, fault)?;
            Ok(page.cut("ServerlessCaches", caches, "NextToken"))
        }
        "DescribeCacheSubnetGroups" => {
            let usual = [shapes::subnet_group("vpc-0example", "subnet-0example")];
            let groups = &scenario.subnet_groups;
            let groups = if groups.is_empty() { usual.as_slice() } else { groups };
            let (name, fault) = (wanted("CacheSubnetGroupName"), "CacheSubnetGroupNotFoundFault");
            let groups = named(groups, "CacheSubnetGroupName", name, fault)?;
            Ok(page.cut("CacheSubnetGroups", groups, "Marker"))
        }
        "ListTagsForResource" => tags(&wanted("ResourceName").unwrap_or_default(), scenario),
        other => {
            Err((400, "InvalidAction", format!("Could not find operation {other} for version 2015-02-02")))
        }
    }
}

/// All entries, or the requested one.
fn named(
    all: &[Value],
    key: &str,
    wanted: Option<String>,
    fault: &'static str,
) -> Result<Vec<Value>, Refusal> {
    let Some(wanted) = wanted else { return Ok(all.to_vec()) };
    match all.iter().find(|entry| entry.get(key).and_then(Value::as_str) == Some(&wanted)) {
        Some(entry) => Ok(vec![entry.clone()]),
        None => Err((404, fault, format!("{key} {wanted} not found."))),
    }
}

/// The tags of a resource, which AWS returns only while it is available.
fn tags(arn: &str, scenario: &Scenario) -> Result<Value, Refusal> {
    let lists = [&scenario.replication_groups, &scenario.cache_clusters, &scenario.serverless_caches];
    let mut resources = lists.into_iter().flatten();
    let Some(resource) = resources.find(|resource| resource.get("ARN").and_then(Value::as_str) == Some(arn))
    else {
        return Err((404, "CacheClusterNotFound", format!("{arn} is either not present or not available.")));
    };
    let status = ["Status", "CacheClusterStatus"].iter().find_map(|key| resource.get(*key)?.as_str());
    if !status.is_some_and(|status| status.eq_ignore_ascii_case("available")) {
        return Err((400, "InvalidReplicationGroupState", format!("{arn} is not available.")));
    }
    let tags = scenario.tags.get(arn).into_iter().flatten();
    Ok(json!({"TagList": tags.map(|(key, value)| json!({"Key": key, "Value": value})).collect::<Vec<_>>()}))
}

/// The requested page of a list. Markers are offsets, but callers must not rely on that.
struct Page {
    offset: usize,
    size: usize,
    loops: bool,
}

impl Page {
    fn of(request: &Request, scenario: &Scenario) -> Self {
        let number =
            |parameter: &str| request.form.get(parameter).and_then(|text| text.parse::<usize>().ok());
        let asked = number("MaxRecords").or_else(|| number("MaxResults")).unwrap_or(100);
        let marker = request.form.get("Marker").or_else(|| request.form.get("NextToken"));
        let offset = marker.and_then(|marker| marker.strip_prefix("after-")?.parse().ok()).unwrap_or(0);
        let size = scenario.page_size.unwrap_or(asked).min(asked).max(1);
        Self { offset, size, loops: scenario.loop_pages }
    }

    fn number(&self) -> usize {
        self.offset / self.size + 1
    }

    fn cut(&self, list: &str, entries: Vec<Value>, marker: &str) -> Value {
        let end = if self.loops { self.size } else { self.offset + self.size };
        let more = entries.len() > end;
        let mut answer =
            json!({list: entries.into_iter().skip(self.offset).take(self.size).collect::<Vec<_>>()});
        if more {
            answer[marker] = json!(format!("after-{end}"));
        }
        answer
    }
}

fn success(action: &str, result: &Value) -> String {
    let result = xml::element(&format!("{action}Result"), result);
    let metadata =
        "<ResponseMetadata><RequestId>00000000-0000-4000-8000-000000000000</RequestId></ResponseMetadata>";
    format!("<{action}Response xmlns=\"{NAMESPACE}\">{result}{metadata}</{action}Response>")
}

fn error(code: &str, message: &str) -> String {
    let (code, message) = (xml::escape(code), xml::escape(message));
    let error = format!("<Error><Type>Sender</Type><Code>{code}</Code><Message>{message}</Message></Error>");
    format!(
        "<ErrorResponse xmlns=\"{NAMESPACE}\">{error}<RequestId>00000000-0000</RequestId></ErrorResponse>"
    )
}

fn message(status: u16, kind: &str, body: &str, scenario: &Scenario) -> Message {
    let date = DateTime::from_secs(now(scenario)).fmt(Format::HttpDate).expect("now can be written");
    Message {
        status,
        headers: vec![("Content-Type", kind.to_owned()), ("Date", date)],
        body: body.to_owned(),
    }
}
