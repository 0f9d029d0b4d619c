package org.redisson.config;

public class Config {
    private final ClusterServersConfig cluster = new ClusterServersConfig();
    private final ReplicatedServersConfig replicated = new ReplicatedServersConfig();

    public ClusterServersConfig useClusterServers() {
        return cluster;
    }

    public ReplicatedServersConfig useReplicatedServers() {
        return replicated;
    }
}
