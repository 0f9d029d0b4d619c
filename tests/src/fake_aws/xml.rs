//! JSON in boto3's shape as the XML that boto3 would read it from.

use serde_json::Value;

/// What the entries of a list are called (`locationName` of the model's list members).
fn entry_name(list: &str) -> &'static str {
    match list {
        "CacheClusters" => "CacheCluster",
        "CacheNodes" => "CacheNode",
        "CacheSecurityGroups" => "CacheSecurityGroup",
        "CacheSubnetGroups" => "CacheSubnetGroup",
        "LogDeliveryConfigurations" => "LogDeliveryConfiguration",
        "MemberClusters" => "ClusterId",
        "MemberClustersOutpostArns" => "ReplicationGroupOutpostArn",
        "NodeGroupMembers" => "NodeGroupMember",
        "NodeGroups" => "NodeGroup",
        "ReplicationGroups" => "ReplicationGroup",
        "SecurityGroupIds" => "SecurityGroupId",
        "SubnetIds" => "SubnetId",
        "Subnets" => "Subnet",
        "TagList" => "Tag",
        _ => "member",
    }
}

/// `<name>value</name>`, whatever the value is.
pub(super) fn element(name: &str, value: &Value) -> String {
    let inner = match value {
        Value::Null => return String::new(),
        Value::Bool(_) | Value::Number(_) => value.to_string(),
        Value::String(text) => escape(text),
        Value::Array(entries) => entries.iter().map(|entry| element(entry_name(name), entry)).collect(),
        Value::Object(members) => members.iter().map(|(name, member)| element(name, member)).collect(),
    };
    format!("<{name}>{inner}</{name}>")
}

/// Text that XML carries; control characters go as references, as a hostile service would send them.
pub(super) fn escape(text: &str) -> String {
    let character = |c: char| match c {
        '&' => "&amp;".to_owned(),
        '<' => "&lt;".to_owned(),
        '>' => "&gt;".to_owned(),
        c if c.is_control() => format!("&#{};", u32::from(c)),
        c => c.to_string(),
    };
    text.chars().map(character).collect()
}
