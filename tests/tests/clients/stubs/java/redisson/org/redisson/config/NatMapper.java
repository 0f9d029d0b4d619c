package org.redisson.config;

import org.redisson.misc.RedisURI;

public interface NatMapper {
    RedisURI map(RedisURI uri);
}
