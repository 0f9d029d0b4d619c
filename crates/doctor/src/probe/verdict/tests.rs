use super::*;

/// Three nodes of AWS's example on their ports, or what is made of them.
fn targets() -> Vec<Target> {
    let one = |number: u16, role: &str| {
        format!(
            r#"{{"id": "my-cluster-00{number}", "cluster": "my-cluster", "role": "{role}", "host": "h", "port": 6379,
            "public_host": "203.0.113.73", "public_port": {}, "private_addresses": ["10.0.1.{}"], "tls": false,
            "protocol": "redis"}}"#,
            6378 + number,
            229 + number
        )
    };
    let nodes = [one(1, "primary"), one(2, "replica"), one(3, "replica")].join(",");
    super::super::parse(&format!(r#"{{"version": 1, "endpoints": [{nodes}]}}"#)).unwrap()
}

fn redis(at: &str, role: Role) -> Result<ServerInfo, GreetError> {
    let at = format!("{at}:6379").parse().ok();
    let run_id = at.map(|at: SocketAddr| at.to_string());
    Ok(ServerInfo { version: Some("7.0.15".into()), role: Some(role), run_id, at, ..ServerInfo::default() })
}

fn words(verdicts: &[ProbeVerdict]) -> Vec<ProbeResult> {
    verdicts.iter().map(|verdict| verdict.result).collect()
}

#[test]
fn every_node_on_its_own_port_is_well() {
    let answers = [
        redis("10.0.1.230", Role::Primary),
        redis("10.0.1.231", Role::Replica),
        redis("10.0.1.232", Role::Replica),
    ];
    let verdicts = evaluate(&targets(), &answers);
    assert_eq!(words(&verdicts), [ProbeResult::Ok; 3]);
    assert_eq!(verdicts[0].detail, "primary, Redis 7.0.15 at 10.0.1.230:6379");
}

#[test]
fn nodes_that_changed_places_are_named() {
    let answers = [
        redis("10.0.1.230", Role::Primary),
        redis("10.0.1.232", Role::Replica),
        redis("10.0.1.231", Role::Replica),
    ];
    let verdicts = evaluate(&targets(), &answers);
    assert_eq!(words(&verdicts), [ProbeResult::Ok, ProbeResult::WrongNode, ProbeResult::WrongNode]);
    assert!(
        verdicts[1].detail.ends_with("that is my-cluster-003, not my-cluster-002"),
        "{}",
        verdicts[1].detail
    );
}

#[test]
fn one_server_behind_two_ports_is_wrong_also_where_nothing_is_known_of_nodes() {
    let targets = Target::of_ports("203.0.113.73:6379-6380").unwrap();
    let answers = [redis("10.0.1.230", Role::Primary), redis("10.0.1.230", Role::Primary)];
    assert_eq!(words(&evaluate(&targets, &answers)), [ProbeResult::Ok, ProbeResult::WrongNode]);
}

#[test]
fn a_failover_since_the_file_was_made_is_no_fault() {
    let answers = [
        redis("10.0.1.230", Role::Replica),
        redis("10.0.1.231", Role::Primary),
        redis("10.0.1.232", Role::Replica),
    ];
    let verdicts = evaluate(&targets(), &answers);
    assert_eq!(words(&verdicts), [ProbeResult::Ok; 3]);
    assert!(verdicts[0].detail.ends_with("it was primary when the file was made"), "{}", verdicts[0].detail);
}

#[test]
fn a_replica_behind_the_primary_s_port_is_wrong_and_a_node_behind_it_is_not() {
    let mut targets = targets();
    let primary = targets[0].node.as_mut().unwrap();
    primary.id = "my-cluster/primary".into();
    targets.truncate(1);
    assert_eq!(words(&evaluate(&targets, &[redis("10.0.1.230", Role::Replica)])), [ProbeResult::WrongNode]);
    assert_eq!(words(&evaluate(&targets, &[redis("10.0.1.230", Role::Primary)])), [ProbeResult::Ok]);
}

#[test]
fn each_failure_has_its_word_and_a_remedy() {
    let name = GreetError::WrongName { expected: "a".into(), presented: vec!["b".into()] };
    let verdicts = evaluate(&targets(), &[Err(GreetError::Refused), Err(GreetError::Silent), Err(name)]);
    assert_eq!(words(&verdicts), [ProbeResult::Refused, ProbeResult::Silent, ProbeResult::TlsName]);
    assert!(verdicts.iter().all(|verdict| verdict.remedy.is_some()));
    assert!(verdicts[1].remedy.as_ref().unwrap().contains("security group"));
}

#[test]
fn a_memcached_where_redis_should_be_is_wrong() {
    let greeting = ServerInfo { speaks: ServerProtocol::Memcached, ..ServerInfo::default() };
    assert_eq!(words(&evaluate(&targets()[..1], &[Ok(greeting)])), [ProbeResult::WrongNode]);
}

#[test]
fn a_server_that_wants_a_password_is_reachable() {
    let greeting = ServerInfo { reserve: Some("NOAUTH".into()), ..ServerInfo::default() };
    let verdicts = evaluate(&targets()[..1], &[Ok(greeting)]);
    assert_eq!(words(&verdicts), [ProbeResult::Ok]);
    assert!(verdicts[0].detail.contains("NOAUTH"), "{}", verdicts[0].detail);
}
