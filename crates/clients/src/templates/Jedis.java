@if singles@
import java.util.List;
@endif singles@
import java.util.Map;
@if clusters@
import java.util.Set;
@endif clusters@
@if any_tls@
import javax.net.ssl.SSLParameters;
@endif any_tls@
import redis.clients.jedis.DefaultJedisClientConfig;
import redis.clients.jedis.HostAndPort;

/** Jedis 4 or later. */
public final class Caches {
@each caches@

@if note@
    // @note@
@endif note@
    // @name@: what the cache calls its nodes, and what they are outside.
    private static final Map<HostAndPort, HostAndPort> @CACHE@_ADDRESSES = Map.ofEntries(
@entries@);

@if cluster@
    /*
     * Jedis 7.2 or later: RedisClusterClient.builder().nodes(@cache@Nodes()).clientConfig(@cache@Config()).build();
     * before: new JedisCluster(@cache@Nodes(), @cache@Config())
     */
    public static Set<HostAndPort> @cache@Nodes() {
        return Set.of(
@nodes@);
    }
@endif cluster@
@unless cluster@
@each primary@
    /*
     * Jedis 7.2 or later: RedisClient.builder().hostAndPort(@cache@Node()).clientConfig(@cache@Config()).build();
     * before: new JedisPooled(@cache@Node(), @cache@Config())
     */
    public static HostAndPort @cache@Node() {
        return @outside@; // @label@
    }
@endeach primary@

    public static List<HostAndPort> @cache@Replicas() {
        return List.of(
@replicas@);
    }
@endunless cluster@

    public static DefaultJedisClientConfig @cache@Config() {
        return DefaultJedisClientConfig.builder()
                .hostAndPortMapper(address -> @CACHE@_ADDRESSES.getOrDefault(address, address))
                .connectionTimeoutMillis(3000)
@if tls@
                .ssl(true).sslParameters(verified())
@endif tls@
                .build();
    }
@endeach caches@
@if any_tls@

    /** Before version 8 Jedis checks the certificate's name only where it is told to. */
    private static SSLParameters verified() {
        SSLParameters parameters = new SSLParameters();
        parameters.setEndpointIdentificationAlgorithm("HTTPS");
        return parameters;
    }
@endif any_tls@
}
