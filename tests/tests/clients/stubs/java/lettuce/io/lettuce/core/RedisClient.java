package io.lettuce.core;

import io.lettuce.core.resource.ClientResources;

public class RedisClient {
    /** The stub's own: what it was made of. */
    public final ClientResources resources;
    /** The stub's own. */
    public final RedisURI uri;

    private RedisClient(ClientResources resources, RedisURI uri) {
        this.resources = resources;
        this.uri = uri;
    }

    public static RedisClient create(ClientResources resources, RedisURI uri) {
        return new RedisClient(resources, uri);
    }

    public void setOptions(ClientOptions options) {}
}
