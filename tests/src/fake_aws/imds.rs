//! IMDSv2: a token by PUT, then everything by GET with the token. Without a token there is nothing (401).

use std::{sync::Mutex, time::Duration};

use super::{
    Call, Response, State,
    http::{Message, Request},
    lock,
};

const TOKEN: &str = "AQAEAfakefakefake==";
const TTL: &str = "x-aws-ec2-metadata-token-ttl-seconds";

pub(super) fn respond(request: &Request, state: &Mutex<State>) -> Response {
    let mut state = lock(state);
    let action = format!("IMDS {}", request.path);
    state.calls.push(Call { action: action.clone(), page: 1, region: String::new() });
    let how = state.scenario.fault(&action, 1).or_else(|| state.scenario.fault("IMDS", 1));
    let after = Duration::from_millis(state.scenario.delay_ms);
    Response { after, message: message(request, &state), how }
}

fn message(request: &Request, state: &State) -> Message {
    let header = |name: &str| request.headers.get(name).map(String::as_str);
    let Some(facts) = &state.scenario.imds else { return plain(403, "") };
    match (request.method.as_str(), request.path.as_str()) {
        ("PUT", "/latest/api/token") => match header(TTL) {
            Some(ttl) => Message { headers: vec![(TTL, ttl.to_owned())], ..plain(200, TOKEN) },
            None => plain(400, ""),
        },
        ("GET", _) if header("x-aws-ec2-metadata-token") != Some(TOKEN) => plain(401, ""),
        ("GET", path) => {
            let fact = path.strip_prefix("/latest/meta-data/").and_then(|path| facts.get(path));
            fact.map_or_else(|| plain(404, "not found"), |fact| plain(200, fact))
        }
        _ => plain(405, ""),
    }
}

fn plain(status: u16, body: &str) -> Message {
    Message { status, headers: vec![("Content-Type", "text/plain".into())], body: body.to_owned() }
}
