<?php
@each caches@

// @name@
@if cluster@
// This is a Redis Cluster, and phpredis' RedisCluster has no map of addresses: it would follow the
// nodes to their private addresses and hang. Use Predis (cachenat endpoints --format predis). What
// follows reaches each node by itself, for the keys that it holds.
@each nodes@
$@cache@_cache[@id@] = new Redis();
$@cache@_cache[@id@]->connect(@parameters@); // @label@
@endeach nodes@
@endif cluster@
@unless cluster@
@each primary@
$@cache@_cache = new Redis();
$@cache@_cache->connect(@parameters@); // @label@
@endeach primary@
@each replicas@
$@cache@_replicas[@id@] = new Redis();
$@cache@_replicas[@id@]->connect(@parameters@); // @label@
@endeach replicas@
@endunless cluster@
@endeach caches@
