@if clusters@
import java.util.Map;
@endif clusters@
import org.redisson.config.Config;
@if clusters@
import org.redisson.misc.RedisURI;
@endif clusters@

/** Redisson 3.12 or later. */
public final class Caches {
@each caches@

@if note@
    // @note@
@endif note@
@if cluster@
    // @name@: what the cache calls its nodes, and what they are outside.
    private static final Map<String, String> @CACHE@_ADDRESSES = Map.ofEntries(
@entries@);

@endif cluster@
@unless cluster@
    // @name@
@endunless cluster@
    public static Config @cache@Cache() {
        Config config = new Config();
@if cluster@
        config.useClusterServers()
                .setNatMapper(uri -> outside(@CACHE@_ADDRESSES, uri))
@endif cluster@
@unless cluster@
        config.useReplicatedServers()
@endunless cluster@
                .setConnectTimeout(3000)
                .addNodeAddress(
@nodes@);
        return config;
    }
@endeach caches@
@if clusters@

    private static RedisURI outside(Map<String, String> addresses, RedisURI uri) {
        String address = addresses.get(uri.getHost() + ":" + uri.getPort());
        return address == null ? uri : new RedisURI(uri.getScheme() + "://" + address);
    }
@endif clusters@
}
