package io.lettuce.core.resource;

import io.lettuce.core.RedisURI;
import io.lettuce.core.internal.HostAndPort;
import java.net.InetSocketAddress;
import java.net.SocketAddress;
import java.util.function.Function;

public class MappingSocketAddressResolver extends SocketAddressResolver {
    private final Function<HostAndPort, HostAndPort> mapping;

    private MappingSocketAddressResolver(DnsResolver dnsResolver, Function<HostAndPort, HostAndPort> mapping) {
        super(dnsResolver);
        this.mapping = mapping;
    }

    public static MappingSocketAddressResolver create(
            DnsResolver dnsResolver, Function<HostAndPort, HostAndPort> mapping) {
        return new MappingSocketAddressResolver(dnsResolver, mapping);
    }

    @Override
    public SocketAddress resolve(RedisURI uri) {
        HostAndPort mapped = mapping.apply(HostAndPort.of(uri.getHost(), uri.getPort()));
        return InetSocketAddress.createUnresolved(mapped.getHostText(), mapped.getPort());
    }
}
