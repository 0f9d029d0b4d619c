package io.lettuce.core.cluster;

import io.lettuce.core.RedisURI;
import io.lettuce.core.resource.ClientResources;

public class RedisClusterClient {
    /** The stub's own: what it was made of. */
    public final ClientResources resources;
    /** The stub's own. */
    public final Iterable<RedisURI> uris;

    private RedisClusterClient(ClientResources resources, Iterable<RedisURI> uris) {
        this.resources = resources;
        this.uris = uris;
    }

    public static RedisClusterClient create(ClientResources resources, Iterable<RedisURI> uris) {
        return new RedisClusterClient(resources, uris);
    }

    public void setOptions(ClusterClientOptions options) {}
}
