package redis.clients.jedis;

import javax.net.ssl.SSLParameters;

public final class DefaultJedisClientConfig implements JedisClientConfig {
    private final Builder builder;

    private DefaultJedisClientConfig(Builder builder) {
        this.builder = builder;
    }

    public static Builder builder() {
        return new Builder();
    }

    @Override
    public boolean isSsl() {
        return builder.ssl;
    }

    @Override
    public SSLParameters getSslParameters() {
        return builder.sslParameters;
    }

    @Override
    public HostAndPortMapper getHostAndPortMapper() {
        return builder.mapper;
    }

    public static class Builder {
        private boolean ssl;
        private SSLParameters sslParameters;
        private HostAndPortMapper mapper;

        private Builder() {}

        public Builder connectionTimeoutMillis(int millis) {
            return this;
        }

        public Builder ssl(boolean ssl) {
            this.ssl = ssl;
            return this;
        }

        public Builder sslParameters(SSLParameters sslParameters) {
            this.sslParameters = sslParameters;
            return this;
        }

        public Builder hostAndPortMapper(HostAndPortMapper mapper) {
            this.mapper = mapper;
            return this;
        }

        public DefaultJedisClientConfig build() {
            return new DefaultJedisClientConfig(this);
        }
    }
}
