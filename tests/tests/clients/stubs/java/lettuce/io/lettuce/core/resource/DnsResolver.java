package io.lettuce.core.resource;

import java.net.InetAddress;
import java.net.UnknownHostException;

public interface DnsResolver {
    InetAddress[] resolve(String host) throws UnknownHostException;
}
