package io.lettuce.core.cluster;

import io.lettuce.core.ClientOptions;
import io.lettuce.core.SocketOptions;

public class ClusterClientOptions extends ClientOptions {
    public static Builder builder() {
        return new Builder();
    }

    public static class Builder extends ClientOptions.Builder {
        @Override
        public Builder socketOptions(SocketOptions options) {
            return this;
        }

        public Builder topologyRefreshOptions(ClusterTopologyRefreshOptions options) {
            return this;
        }

        @Override
        public ClusterClientOptions build() {
            return new ClusterClientOptions();
        }
    }
}
