package io.lettuce.core;

public class RedisURI {
    private final String host;
    private final int port;
    private boolean ssl;

    public RedisURI(String host, int port) {
        this.host = host;
        this.port = port;
    }

    public String getHost() {
        return host;
    }

    public int getPort() {
        return port;
    }

    public boolean isSsl() {
        return ssl;
    }

    public static class Builder {
        private final RedisURI uri;

        private Builder(RedisURI uri) {
            this.uri = uri;
        }

        public static Builder redis(String host, int port) {
            return new Builder(new RedisURI(host, port));
        }

        public Builder withSsl(boolean ssl) {
            uri.ssl = ssl;
            return this;
        }

        public Builder withVerifyPeer(boolean verifyPeer) {
            if (!verifyPeer) {
                throw new IllegalArgumentException("verification is to stay on");
            }
            return this;
        }

        public RedisURI build() {
            return uri;
        }
    }
}
