"""Reads an account as AWS's own SDK does, and prints what it understood as JSON.

usage: boto3_reads.py URL   (the ElastiCache API and the instance metadata service are both there)

tests/discovery/boto3.rs compares it with what the fake was told to answer and with what discovery understood.
"""

import json
import sys

import boto3
import botocore.config
import botocore.exceptions
import botocore.utils

URL = sys.argv[1]

client = boto3.client(
    "elasticache",
    region_name="us-east-2",
    endpoint_url=URL,
    aws_access_key_id="AKIDEXAMPLE",
    aws_secret_access_key="secret",
    config=botocore.config.Config(retries={"total_max_attempts": 1}, connect_timeout=5, read_timeout=5),
)


def every(operation, key, **parameters):
    """All entries of a paginated answer."""
    return [entry for page in client.get_paginator(operation).paginate(**parameters) for entry in page[key]]


def node(identity, cluster, shard, role, engine, tls, endpoint):
    """One node in the words of `discover --json`."""
    endpoint = endpoint or {}
    return {
        "id": identity,
        "cluster": cluster,
        "shard": shard,
        "role": role,
        "engine": engine,
        "tls": tls,
        "host": endpoint.get("Address", ""),
        "port": endpoint.get("Port", 6379),
    }


def nodes_of_group(group, clusters):
    """A group's members: what the group does not say, the member's own cluster does."""
    identity, engine, tls = group["ReplicationGroupId"], group["Engine"], group["TransitEncryptionEnabled"]
    for shard in group["NodeGroups"]:
        for member in shard["NodeGroupMembers"]:
            name = member["CacheClusterId"]
            endpoint = member.get("ReadEndpoint") or clusters[name]["CacheNodes"][0]["Endpoint"]
            role = member.get("CurrentRole")
            yield node(name, identity, shard["NodeGroupId"], role, engine, tls, endpoint)


def nodes_of_cluster(cluster):
    """A Memcached cluster's nodes, or the one standalone node."""
    identity, engine, tls = cluster["CacheClusterId"], cluster["Engine"], cluster["TransitEncryptionEnabled"]
    for entry in cluster["CacheNodes"]:
        name = f"{identity}-{entry['CacheNodeId']}" if engine == "memcached" else identity
        yield node(name, identity, None, None, engine, tls, entry["Endpoint"])


def nodes_of_serverless(cache):
    """Both endpoints of a serverless cache."""
    name, engine = cache["ServerlessCacheName"], cache["Engine"]
    yield node(name, name, None, None, engine, True, cache["Endpoint"])
    yield node(f"{name}/reader", name, None, "reader", engine, True, cache["ReaderEndpoint"])


def error_code(call, **parameters):
    """The code of the error that a call ends with."""
    try:
        call(**parameters)
    except botocore.exceptions.ClientError as error:
        return error.response["Error"]["Code"]
    return None


groups = every("describe_replication_groups", "ReplicationGroups")
clusters = every("describe_cache_clusters", "CacheClusters", ShowCacheNodeInfo=True)
serverless = every("describe_serverless_caches", "ServerlessCaches")
by_id = {cluster["CacheClusterId"]: cluster for cluster in clusters}

nodes = [found for group in groups for found in nodes_of_group(group, by_id)]
nodes += [found for cluster in clusters if "ReplicationGroupId" not in cluster for found in nodes_of_cluster(cluster)]
nodes += [found for cache in serverless for found in nodes_of_serverless(cache)]

arns = [resource["ARN"] for resource in groups + clusters + serverless]
tags = {arn: client.list_tags_for_resource(ResourceName=arn)["TagList"] for arn in arns}

print(
    json.dumps(
        {
            "replication_groups": groups,
            "cache_clusters": clusters,
            "serverless_caches": serverless,
            "tags": {arn: {tag["Key"]: tag["Value"] for tag in found} for arn, found in tags.items() if found},
            "nodes": sorted(nodes, key=lambda found: found["id"]),
            "missing": [
                error_code(client.describe_replication_groups, ReplicationGroupId="nowhere"),
                error_code(client.describe_cache_clusters, CacheClusterId="nowhere"),
                error_code(client.describe_serverless_caches, ServerlessCacheName="nowhere"),
                error_code(client.list_tags_for_resource, ResourceName="arn:aws:elasticache:us-east-2:1:cluster:no"),
            ],
            # The base URL is given: without one the fetcher would ask the real service.
            "region": botocore.utils.InstanceMetadataRegionFetcher(
                timeout=5, base_url=URL, user_agent="test", config={"ec2_metadata_v1_disabled": True}
            ).retrieve_region(),
        }
    )
)
