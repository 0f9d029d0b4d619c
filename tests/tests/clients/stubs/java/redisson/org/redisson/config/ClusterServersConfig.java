package org.redisson.config;

import java.util.Arrays;
import java.util.List;

public class ClusterServersConfig extends BaseConfig<ClusterServersConfig> {
    private NatMapper natMapper;
    private List<String> nodeAddresses;

    public ClusterServersConfig setNatMapper(NatMapper natMapper) {
        this.natMapper = natMapper;
        return this;
    }

    public NatMapper getNatMapper() {
        return natMapper;
    }

    public ClusterServersConfig addNodeAddress(String... addresses) {
        nodeAddresses = Arrays.asList(addresses);
        return this;
    }

    public List<String> getNodeAddresses() {
        return nodeAddresses;
    }
}
