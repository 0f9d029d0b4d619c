package io.lettuce.core;

import java.time.Duration;

public class SocketOptions {
    public static Builder builder() {
        return new Builder();
    }

    public static class Builder {
        public Builder connectTimeout(Duration timeout) {
            return this;
        }

        public SocketOptions build() {
            return new SocketOptions();
        }
    }
}
