package redis.clients.jedis;

import java.util.Objects;

public class HostAndPort {
    private final String host;
    private final int port;

    public HostAndPort(String host, int port) {
        this.host = host;
        this.port = port;
    }

    public String getHost() {
        return host;
    }

    public int getPort() {
        return port;
    }

    @Override
    public boolean equals(Object other) {
        return other instanceof HostAndPort && ((HostAndPort) other).port == port
                && ((HostAndPort) other).host.equals(host);
    }

    @Override
    public int hashCode() {
        return Objects.hash(host, port);
    }
}
