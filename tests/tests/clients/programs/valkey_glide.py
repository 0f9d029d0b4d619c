# Goes on from the text of --format valkey-glide-python, which made shards_cache, a configuration.
import asyncio
import sys
import time

from glide import GlideClusterClient, ReadFrom


async def settled(act):
    """Retries for the given number of seconds."""
    end = time.monotonic() + float(sys.argv[2])
    while True:
        try:
            return await act()
        except Exception:
            if time.monotonic() > end:
                raise
            await asyncio.sleep(0.1)


async def write_and_read(client, value):
    keys = [f"{sys.argv[1]}:{number}" for number in range(300)]
    for key in keys:
        await settled(lambda: client.set(key, value))
    for key in keys:
        assert await settled(lambda: client.get(key)) == value.encode(), key


async def main():
    client = await GlideClusterClient.create(shards_cache)
    await write_and_read(client, "before")
    shards_cache.read_from = ReadFrom.PREFER_REPLICA
    reader = await GlideClusterClient.create(shards_cache)
    for number in range(300):
        end = time.monotonic() + 5
        while await reader.get(f"{sys.argv[1]}:{number}") != b"before":
            assert time.monotonic() < end, number
    await reader.close()
    print("before", flush=True)
    if sys.stdin.readline():
        await write_and_read(client, "after")
        print("after", flush=True)
    await client.close()


asyncio.run(main())
