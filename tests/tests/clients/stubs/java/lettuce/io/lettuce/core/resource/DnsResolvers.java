package io.lettuce.core.resource;

import java.net.InetAddress;

public enum DnsResolvers implements DnsResolver {
    UNRESOLVED {
        @Override
        public InetAddress[] resolve(String host) {
            return new InetAddress[0];
        }
    }
}
