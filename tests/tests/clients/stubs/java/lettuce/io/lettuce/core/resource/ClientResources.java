package io.lettuce.core.resource;

public interface ClientResources {
    SocketAddressResolver socketAddressResolver();

    static Builder builder() {
        return new Builder() {
            private SocketAddressResolver resolver;

            @Override
            public Builder socketAddressResolver(SocketAddressResolver resolver) {
                this.resolver = resolver;
                return this;
            }

            @Override
            public ClientResources build() {
                return () -> resolver;
            }
        };
    }

    interface Builder {
        Builder socketAddressResolver(SocketAddressResolver resolver);

        ClientResources build();
    }
}
