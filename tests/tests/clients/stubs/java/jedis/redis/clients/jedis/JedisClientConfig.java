package redis.clients.jedis;

import javax.net.ssl.SSLParameters;

public interface JedisClientConfig {
    boolean isSsl();

    SSLParameters getSslParameters();

    HostAndPortMapper getHostAndPortMapper();
}
