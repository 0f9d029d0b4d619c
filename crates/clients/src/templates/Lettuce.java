@if singles@
import io.lettuce.core.ClientOptions;
import io.lettuce.core.RedisClient;
@endif singles@
import io.lettuce.core.RedisURI;
import io.lettuce.core.SocketOptions;
@if clusters@
import io.lettuce.core.cluster.ClusterClientOptions;
import io.lettuce.core.cluster.ClusterTopologyRefreshOptions;
import io.lettuce.core.cluster.RedisClusterClient;
@endif clusters@
import io.lettuce.core.internal.HostAndPort;
import io.lettuce.core.resource.ClientResources;
import io.lettuce.core.resource.DnsResolvers;
import io.lettuce.core.resource.MappingSocketAddressResolver;
import java.time.Duration;
import java.util.List;
import java.util.Map;

/** Lettuce 5.1 or later. */
public final class Caches {
@each caches@

    // @name@: what the cache calls its nodes, and what they are outside.
    private static final Map<HostAndPort, HostAndPort> @CACHE@_ADDRESSES = Map.ofEntries(
@entries@);

@if cluster@
    public static RedisClusterClient @cache@Cache() {
        RedisClusterClient client = RedisClusterClient.create(outside(@CACHE@_ADDRESSES), List.of(
@nodes@));
        client.setOptions(ClusterClientOptions.builder()
                .topologyRefreshOptions(
                        ClusterTopologyRefreshOptions.builder().enableAllAdaptiveRefreshTriggers().build())
                .socketOptions(SocketOptions.builder().connectTimeout(Duration.ofSeconds(3)).build())
                .build());
        return client;
    }
@endif cluster@
@unless cluster@
    /* MasterReplica.connect(@cache@Cache(), StringCodec.UTF8, @cache@Nodes()) also reads from replicas. */
    public static List<RedisURI> @cache@Nodes() {
        return List.of(
@nodes@);
    }

    public static RedisClient @cache@Cache() {
        RedisClient client = RedisClient.create(outside(@CACHE@_ADDRESSES), @primary@);
        client.setOptions(ClientOptions.builder()
                .socketOptions(SocketOptions.builder().connectTimeout(Duration.ofSeconds(3)).build())
                .build());
        return client;
    }
@endunless cluster@
@endeach caches@

    private static ClientResources outside(Map<HostAndPort, HostAndPort> addresses) {
        return ClientResources.builder()
                .socketAddressResolver(MappingSocketAddressResolver.create(
                        DnsResolvers.UNRESOLVED, address -> addresses.getOrDefault(address, address)))
                .build();
    }
}
