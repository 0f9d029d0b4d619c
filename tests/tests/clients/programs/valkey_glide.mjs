import { GlideClusterClient } from "@valkey/valkey-glide";

const client = await GlideClusterClient.createClient(shardsCache);
const reader = await GlideClusterClient.createClient({ ...shardsCache, readFrom: "preferReplica" });
await tell(client, reader);
