package io.lettuce.core.resource;

import io.lettuce.core.RedisURI;
import java.net.SocketAddress;

public class SocketAddressResolver {
    protected SocketAddressResolver(DnsResolver dnsResolver) {}

    public SocketAddress resolve(RedisURI uri) {
        throw new UnsupportedOperationException();
    }
}
