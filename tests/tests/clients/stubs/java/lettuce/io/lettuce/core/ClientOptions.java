package io.lettuce.core;

public class ClientOptions {
    public static Builder builder() {
        return new Builder();
    }

    public static class Builder {
        public Builder socketOptions(SocketOptions options) {
            return this;
        }

        public ClientOptions build() {
            return new ClientOptions();
        }
    }
}
