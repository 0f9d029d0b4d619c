package org.redisson.config;

import java.util.Arrays;
import java.util.List;

public class ReplicatedServersConfig extends BaseConfig<ReplicatedServersConfig> {
    private List<String> nodeAddresses;

    public ReplicatedServersConfig addNodeAddress(String... addresses) {
        nodeAddresses = Arrays.asList(addresses);
        return this;
    }

    public List<String> getNodeAddresses() {
        return nodeAddresses;
    }
}
