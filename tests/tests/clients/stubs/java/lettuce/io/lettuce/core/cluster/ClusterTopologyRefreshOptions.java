package io.lettuce.core.cluster;

public class ClusterTopologyRefreshOptions {
    public static Builder builder() {
        return new Builder();
    }

    public static class Builder {
        public Builder enableAllAdaptiveRefreshTriggers() {
            return this;
        }

        public ClusterTopologyRefreshOptions build() {
            return new ClusterTopologyRefreshOptions();
        }
    }
}
