const reader = shardsCache.duplicate({ useReplicas: true });
reader.on("error", (error) => console.error(error));
await shardsCache.connect();
await reader.connect();
await tell(shardsCache, reader);
