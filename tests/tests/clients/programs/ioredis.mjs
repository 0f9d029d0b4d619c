await tell(shardsCache, shardsCache.duplicate([], { scaleReads: "slave" }));
