package org.redisson.misc;

public class RedisURI {
    private final String scheme;
    private final String host;
    private final int port;

    public RedisURI(String uri) {
        scheme = uri.split("://")[0];
        String address = uri.split("://")[1];
        host = address.substring(0, address.lastIndexOf(':'));
        port = Integer.parseInt(address.substring(address.lastIndexOf(':') + 1));
    }

    public String getScheme() {
        return scheme;
    }

    public String getHost() {
        return host;
    }

    public int getPort() {
        return port;
    }
}
